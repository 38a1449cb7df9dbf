"""What fine-tuning is worth beside the head that it begins with, on images that no setting was chosen on.

Each draw takes other classes and other photographs: ten classes of Tiny ImageNet (never the first ten, on
which settings were explored), photographs of flowers and scikit-learn's digits, and few of each. All methods
of a draw share the files, the split and the cached frozen part: the default head, the last stages fine-tuned
by `headstart fit --freeze N`, `--freeze auto`, and the last stages once more with mixup of the cached maps
(Zhang et al., ICLR 2018; Beta(0.3, 0.3)), which Headstart does not have. The test images are asked once.

    python benchmarks/finetuning.py [--data ../shared/data] [--draws 5] [--backbone efficientnet_lite0]

Prints accuracy and loss of each method, and its mean difference to the head, with the standard error over
draws.
"""

import argparse
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

IMAGES = {"flowers": 120, "digits": 60, "tiny": 60, "few": 10}
"""Photographs of a class to train and validate on."""
TEST = 40
"""Of a class."""
EXPLORED = 10
"""Classes of Tiny ImageNet at the head of the list, on which settings were explored."""
STAGES = 2
MIXUP = 0.3


def main() -> None:
    """Draw, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--sets", nargs="*", default=list(IMAGES), choices=list(IMAGES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ |= {"HEADSTART_HOME": f"{work}/home", "HEADSTART_CACHE": f"{work}/cache"}
        for name in options.sets:
            rows: dict[str, list[dict[str, float]]] = {}
            for seed in range(options.draws):
                folder = Path(work) / f"{name}-{seed}"
                draw(name, options.data, folder, random=np.random.default_rng((seed, 77)))
                for method, found in trained(folder, options):
                    rows.setdefault(method, []).append(found)
                shutil.rmtree(folder)
                print(
                    f"{name}, draw {seed}",
                    {m: round(r[-1]["accuracy"], 3) for m, r in rows.items()},
                    flush=True,
                )
            show(name, rows)


def draw(name: str, data: Path, folder: Path, *, random: np.random.Generator) -> None:
    """Folders ``train`` and ``test`` of one draw."""
    for label, contents in classes(name, data, random):
        order = random.permutation(len(contents))
        for rank, index in enumerate(order[: IMAGES[name] + TEST]):
            side = "test" if rank < TEST else "train"
            suffix, read = contents[index]
            place = folder / side / label / f"{rank:04}{suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(read())


def classes(
    name: str, data: Path, random: np.random.Generator
) -> Iterator[tuple[str, list[tuple[str, Callable[[], bytes]]]]]:
    """Each class, and its photographs: how their files end, and what reads them."""
    if name in ("flowers", "few"):
        for label in sorted(each.name for each in (data / "flowers/train").iterdir()):
            files = sorted((data / "flowers").glob(f"*/{label}/*.jpg"))
            yield label, [(each.suffix, each.read_bytes) for each in files]
    elif name == "digits":
        import io

        from PIL import Image
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        for label in range(10):
            pictures = []
            for one in pixels[labels == label]:
                file = io.BytesIO()
                grey = (one.reshape(8, 8) * 255 / 16).astype(np.uint8)
                Image.fromarray(grey).resize((64, 64), Image.Resampling.BICUBIC).save(file, "png")
                pictures.append((".png", file.getvalue))
            yield str(label), pictures
    else:
        archive = zipfile.ZipFile(data / "tiny-imagenet-64.zip")
        members = [
            each for each in archive.namelist() if each.startswith("train/") and each.endswith(".webp")
        ]
        names = sorted({each.split("/")[1] for each in members})[EXPLORED:]
        for label in random.choice(names, 10, replace=False):
            inside = [each for each in members if each.split("/")[1] == label]
            yield str(label), [(".webp", lambda each=each: archive.read(each)) for each in inside]


def trained(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """Each method's name, and what its classifier says of the test images."""
    import headstart

    stages = len(headstart.load_backbone(options.backbone, size=options.size).stages)
    last = {"freeze": stages - STAGES, "layers": "last"}
    methods: dict[str, dict[str, Any]] = {
        "head": {},
        "head on the last layer": {"layers": "last"},
        "last two stages": last,
        "with mixup": last,
        "--freeze auto": {"freeze": "auto"},
    }
    for number, (method, asked) in enumerate(methods.items()):
        started = time.process_time()
        with mixup() if method == "with mixup" else contextmanager(lambda: iter((None,)))():
            _, run = headstart.fit(
                folder,
                backbone=options.backbone,
                size=options.size,
                validation=0.2,
                out=folder.parent / f"{folder.name}-run-{number}",
                **asked,
            )
        scores = run.evaluation["test"]
        yield (
            method,
            {
                "accuracy": scores["accuracy"],
                "loss": scores["log_loss"],
                "seconds": time.process_time() - started,
            },
        )


@contextmanager
def mixup() -> Iterator[None]:
    """Every step of a training mixes its batch with itself in another order."""
    import torch
    from torch import nn

    from headstart.training import finetune

    plain = finetune._Run._logits
    mixed: dict[str, Any] = {}

    def logits(run: Any, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        if not model[1].training:
            return plain(run, model, inputs)
        share = float(np.random.default_rng(int(torch.randint(2**31, ()))).beta(MIXUP, MIXUP))
        order = torch.randperm(len(inputs))
        mixed.update(share=share, order=order)
        return plain(run, model, share * inputs + (1 - share) * inputs[order])

    class Mixed(nn.CrossEntropyLoss):
        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            other = super().forward(input, target[mixed["order"]])
            return mixed["share"] * super().forward(input, target) + (1 - mixed["share"]) * other

    with patch.object(finetune._Run, "_logits", logits), patch.object(finetune.nn, "CrossEntropyLoss", Mixed):
        yield


def show(name: str, rows: dict[str, list[dict[str, float]]]) -> None:
    """A line for each method."""
    print(f"{name}, {len(rows['head'])} draws: accuracy, loss; difference to the head on the last layer")
    base = rows["head on the last layer"]
    for method, found in rows.items():
        cells = []
        for what, scale in (("accuracy", 100), ("loss", 1)):
            values = scale * np.array([each[what] for each in found])
            apart = values - scale * np.array([each[what] for each in base])
            error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else float("nan")
            cells.append(f"{values.mean():7.3f} ({apart.mean():+.3f} ± {error:.3f})")
        print(
            f"  {method:24} {'  '.join(cells)}  {np.mean([each['seconds'] for each in found]):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
