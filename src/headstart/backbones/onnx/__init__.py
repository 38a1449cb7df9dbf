"""Backbones from an ONNX file, of a path or of a Hugging Face repository, or from OpenVINO's form of one.

`file` finds it and says what it is; `reading` reads it and its further files, bounded; `export`, imported at
its first use, cuts it into stages and has `staging` write them. `ir` writes OpenVINO's form as ONNX.
"""
