"""Small timm networks with random weights."""

from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch

SIZE = 64
SMALL = "mobilenetv3_small_050"
SAID = {"architecture": SMALL, "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25", "interpolation": "bilinear"}


def timm_model(name: str, **kwargs: Any) -> Any:
    """A small network with random weights and with BatchNorm statistics that are not the trivial ones."""
    torch.manual_seed(0)
    if timm.get_pretrained_cfg(name).fixed_input_size:
        kwargs["img_size"] = (SIZE, SIZE)
    model = timm.create_model(name, num_classes=0, **kwargs).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower with more threads, and much slower beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same_state(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    now = module.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[key], value) for key, value in before.items())
