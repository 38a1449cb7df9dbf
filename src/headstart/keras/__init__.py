"""The same speed for a Keras model that you already have.

`fit` does what ``model.fit`` does, and runs the frozen part of the model once per image.
"""

import contextlib
import importlib.util
import sys

from headstart.errors import MissingExtra

# Triton and TensorFlow each bring an LLVM of their own, and where Triton is the second to register its
# options the process ends ("LLVM ERROR: inconsistency in registered CommandLine options"). So it comes first;
# where TensorFlow is there already it is hidden, as importing it would be fatal: PyTorch can do without it.
if "triton" not in sys.modules and importlib.util.find_spec("triton") is not None:
    if "tensorflow" in sys.modules:
        sys.modules["triton"] = None  # type: ignore[assignment]
    else:
        with contextlib.suppress(Exception):  # one that is not usable here
            importlib.import_module("triton")

try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra("headstart.keras", extra="keras") from error

from headstart.keras.conversion import to_classifier
from headstart.keras.overview import Prefix, prefix
from headstart.keras.training import Saving, fit

__all__ = ["Prefix", "Saving", "fit", "prefix", "to_classifier"]
