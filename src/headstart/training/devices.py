"""On what stages are trained, and in which precision."""

import torch
from torch import nn

from headstart.errors import OptionError


def device_of(name: str) -> torch.device:
    """``auto`` is CUDA where there is one.

    Raises:
        OptionError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise OptionError(f"device {name!r} is not here; use auto or cpu")
    return torch.device(name)


def precision_of(asked: str, trainable: nn.Module, *, device: torch.device) -> str:
    """What ``auto`` means for these stages on this machine: bf16 or f32."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "f32"
    fast = any(
        getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("amx_tile", "avx512_bf16")
    )
    return "bf16" if fast and not any(map(_large_depthwise, trainable.modules())) else "f32"


def _large_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1 and max(module.kernel_size) > 3
