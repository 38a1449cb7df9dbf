"""The same speed for a Keras model that you already have.

`fit` does what ``model.fit`` does, and runs the frozen part of the model once per image.
"""

import sys

from headstart.errors import MissingExtra

try:
    import keras  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra("headstart.keras", extra="keras") from error

if "tensorflow" in sys.modules and "triton" not in sys.modules:
    # Each brings an LLVM of its own, and the second one to register its options ends the process ("LLVM
    # ERROR: inconsistency in registered CommandLine options"). PyTorch can do without Triton.
    sys.modules["triton"] = None  # type: ignore[assignment]

from headstart.keras.conversion import to_classifier
from headstart.keras.overview import Prefix, prefix
from headstart.keras.training import Saving, fit

__all__ = ["Prefix", "Saving", "fit", "prefix", "to_classifier"]
