"""Imports OpenVINO without its model conversion tools."""

import importlib
import sys
from types import ModuleType

_TOOLS = "openvino.tools.ovc"


def openvino() -> ModuleType:
    """The module ``openvino``, imported on first use.

    Importing it plainly also imports its conversion tools, which more than doubles the time that takes and
    reports the import to the makers' usage statistics from a child process. Neither suits a tool that works
    offline, and OpenVINO treats the tools as optional; so they are hidden while it is imported. Code that
    needs them can still say ``from openvino.tools.ovc import convert_model``.
    """
    if "openvino" in sys.modules or _TOOLS in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[_TOOLS] = None  # type: ignore[assignment]  # how Python marks a module as not importable
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TOOLS]
