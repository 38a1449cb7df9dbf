"""Parts of the `predict.py` that is written beside an export: `shared`, and one way of running each format.

They are read as text, joined and copied; nothing of Headstart may be imported in them.
"""
