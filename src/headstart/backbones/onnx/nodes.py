"""Nodes of ONNX graphs: those that are being written, and which of them an output needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Nodes:
    """Nodes and constants of a graph that is being written."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix  # of every name that is made here
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: Sequence[str], *, output: str = "", **attributes: Any) -> str:
        """Append a node, whose own name begins with the prefix, too; its output's name."""
        name = output or f"{self.prefix}/{len(self.nodes)}-{operator.lower()}-{len(self.constants)}"
        node = helper.make_node(operator, list(inputs), [name], name=f"{self.prefix}/{name}", **attributes)
        self.nodes.append(node)
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant; its name."""
        name = f"{self.prefix}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name


def averages(length: int, cells: int) -> NDArray[np.float64]:
    """Adaptive average pooling of one axis as a matrix [length, cells].

    Cell i covers floor(i L / n) to ceil((i + 1) L / n), as in PyTorch's ``adaptive_avg_pool2d``.
    """
    weights = np.zeros((length, cells))
    for cell in range(cells):
        start, end = cell * length // cells, -(-(cell + 1) * length // cells)
        weights[start:end, cell] = 1.0 / (end - start)
    return weights


def names_read(node: Any) -> set[str]:
    """Names that a node reads, those that its inner graphs read from outside included."""
    found = set(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
            for inner in graph.node:
                found |= names_read(inner)
            found.update(value.name for value in graph.output)
    return found


def needed(nodes: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """The nodes that the outputs depend on, in their order (which ONNX wants to be topological)."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= names_read(node)
            kept.append(node)
    return kept[::-1]
