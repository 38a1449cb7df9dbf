"""Prediction over HTTP: a saved classifier behind `POST /predict`, with bounds on everything that comes in.

    request -> auth (name, origin, token) -> uploads (sizes, parts) -> batching (decode, forward) -> answer

The classifier is exchanged for a newer one while it serves (`models`). Nothing is imported here, because the
command line starts with the bounds alone.
"""
