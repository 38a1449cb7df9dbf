"""TorchScript, by PyTorch."""

from pathlib import Path
from typing import Any

from headstart.exports.programs.shared import Run


def open_model(folder: Path) -> Run:
    """`model.pt`, on the processor."""
    import torch

    load: Any = torch.jit.load  # it has no types
    model = load(folder / "model.pt", map_location="cpu")

    def run(pixels: Any) -> Any:
        with torch.inference_mode():
            return model(torch.tensor(pixels)).numpy()

    return run
