"""OpenVINO: imported without its model conversion tools, and what it tells of a staged graph."""

import importlib
import sys
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

_TOOLS = "openvino.tools.ovc"

_NO_WEIGHTS = ("i64", "i32", "boolean", "string")
"""Types of constants that say where and how much, and are no numbers that were trained."""


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


@cache
def the_core() -> Any:
    """OpenVINO's `Core`, the only one of this process.

    On processors with AMX a core gives the thread that first uses it another stack for signals, and frees
    that with itself, perhaps in another thread: the next SIGTERM or Ctrl-C was a crash then.
    """
    return openvino().Core()


def measure(path: Path, *, stages: Sequence[str], size: int) -> tuple[list[dict[str, Any]], int]:
    """Per stage ``{"name", "shape", "multiply_adds"}`` for one image of ``size`` pixels a side, and ``D``.

    An operation belongs to the first stage whose output needs it; what comes after the last stage's map
    counts to the last stage. Counted are convolutions and matrix products, one multiply-add per weight used.
    """
    model = the_core().read_model(path)
    model.reshape({"image": [1, 3, size, size]})
    outputs = {name: port for port in model.outputs for name in port.get_names()}
    seen: set[str] = set()
    facts: list[dict[str, Any]] = []
    for name in stages:
        work, _ = cost_before(outputs[name].get_node(), seen)
        facts.append({"name": name, "shape": list(outputs[name].get_shape())[1:], "multiply_adds": work})
    facts[-1]["multiply_adds"] += cost_before(outputs["features"].get_node(), seen)[0]
    return facts, int(outputs["features"].get_shape()[1])


def cost_before(node: Any, seen: set[str]) -> tuple[int, int]:
    """Multiply-adds and weights of ``node`` and all it needs that is not in ``seen``, which is added to."""
    work, weights, waiting = 0, 0, [node]
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        work += _multiply_adds(node)
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() not in _NO_WEIGHTS:
            numbers = prod(node.get_output_shape(0))
            weights += numbers if numbers > 1 else 0
        waiting.extend(port.get_source_output().get_node() for port in node.inputs())
    return work, weights


def _multiply_adds(node: Any) -> int:
    kind = node.get_type_name()
    if kind == "MatMul":
        inner = -2 if node.get_attributes()["transpose_a"] else -1
        return int(prod(node.get_output_shape(0)) * node.get_input_shape(0)[inner])
    if kind in ("Convolution", "GroupConvolution"):
        weights = node.get_input_shape(1)  # [out, in, kh, kw], with the number of groups in front if grouped
        per_output = prod(weights[1:] if kind == "Convolution" else weights[2:])
        return int(prod(node.get_output_shape(0)) * per_output)
    return 0
