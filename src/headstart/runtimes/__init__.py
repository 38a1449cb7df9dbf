"""Runtimes: what executes a prefix, OpenVINO or PyTorch."""

from headstart.runtimes.protocol import CompiledPrefix, Runtime
from headstart.runtimes.selection import select

__all__ = ["CompiledPrefix", "Runtime", "select"]
