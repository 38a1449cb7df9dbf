"""Backbones from a `.keras` file, and what every package that works on Keras models shares: the opened graph.

`file` says what a file is without Keras; `network`, imported at its first use, opens it once and writes it as
ONNX. From there on it is cut and checked as any ONNX file.
"""
