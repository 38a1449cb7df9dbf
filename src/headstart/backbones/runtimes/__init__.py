"""Runtimes: what executes a frozen part, OpenVINO or PyTorch."""

from headstart.backbones.building import require_timm
from headstart.backbones.runtimes.protocol import FrozenPart, Runtime
from headstart.errors import OptionError

__all__ = ["FrozenPart", "Runtime", "select"]


def select(name: str = "auto", *, precision: str = "auto") -> Runtime:
    """The runtime of that name; ``auto`` is OpenVINO, which is always installed.

    Args:
        name: ``auto``, ``openvino`` or ``torch``.
        precision: ``auto``, ``bf16`` or ``f32``; ``auto`` is what the runtime is fastest with on this
            machine.

    Raises:
        OptionError: Unknown runtime, or a precision that it does not have here.
        MissingExtra: PyTorch is asked for and not installed.
    """
    if name in ("auto", "openvino"):
        from headstart.backbones.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(precision=precision)
    if name == "torch":
        require_timm("runtime torch")
        from headstart.backbones.runtimes.torch import TorchRuntime

        return TorchRuntime(precision=precision)
    raise OptionError(f"runtime {name!r}: expected auto, openvino or torch")
