"""The classifier: preprocessing, network, head and labels in one value that predicts, saves and loads.

A saved classifier is a folder. `model.onnx` is complete: pixels in, probabilities out, with the arithmetic of
the preprocessing, the stages, the layers and the head inside (`onnx_graph` builds it), so any ONNX runtime
can use it. Loading needs no pickle and predicting needs no PyTorch.
"""

from headstart.classifier.classifier import (
    MODEL_FILE,
    WEIGHTS_FILE,
    Classifier,
    InputImage,
    check_parity,
    load,
)
from headstart.classifier.predictions import Prediction, Predictions, PredictOptions

__all__ = [
    "MODEL_FILE",
    "WEIGHTS_FILE",
    "Classifier",
    "InputImage",
    "PredictOptions",
    "Prediction",
    "Predictions",
    "check_parity",
    "load",
]
