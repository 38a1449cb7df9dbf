"""Backbones from a `.keras` file, and what every package that works on Keras models shares: the opened graph.

`file` says what a file is without Keras; `stages`, imported at its first use, opens it once and exports it.
"""
