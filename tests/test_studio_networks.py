"""A network's own file in the studio's plan: below the root, and nowhere else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")
pytest.importorskip("prometheus_client", reason="needs headstart[serve]")

from headstart import load_backbone
from headstart.runs import RunStore
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


def network_files(world: World) -> Path:
    """An ONNX file below the root, and one outside with a link to it."""
    inside, outside = world.root / "networks" / "mine.onnx", world.root.parent / "secret.onnx"
    inside.parent.mkdir()
    for file in (inside, outside):
        shutil.copy(load_backbone("builtin").graph, file)
    (world.root / "networks" / "link.onnx").symlink_to(outside)
    return inside


def test_a_networks_file_below_the_root_is_planned_and_trained_like_others(world: World) -> None:
    file, data = network_files(world), world.open()
    asked = {"backbones": ["builtin@96"], "file": "networks/mine.onnx", "pixels": "imagenet:size=64"}
    assert world.post(f"{data}/plan", **asked).status_code == 200
    world.plan(data)
    page = world.browser.get(f"{data}/plan").text
    row = "mine.onnx@64/all"
    assert f'value="{row}"' in page and 'value="imagenet:size=64"' in page
    assert ">mine.onnx <" in page
    run = world.train(data, chosen=row)
    config = RunStore().find(run.rsplit("/", 1)[1]).config
    assert (config.backbone, config.preprocess, config.size) == (str(file.resolve()), "imagenet:size=64", 64)
    rows = world.post(f"{data}/compare", rows=[row, "builtin@96/all"])
    assert world.wait(rows.url.path).result["comparison"]
    file.unlink()
    assert world.post(f"{data}/train", chosen=row).status_code == 400, "it is gone"


@pytest.mark.parametrize(
    ("file", "pixels"),
    [
        ("networks/link.onnx", "imagenet"),
        ("../secret.onnx", "imagenet"),
        ("networks", "imagenet"),
        ("photos/discs/0.png", "imagenet"),
        ("networks/mine.onnx", "upside down"),
    ],
)
def test_what_lies_outside_or_is_no_network_is_refused(world: World, file: str, pixels: str) -> None:
    network_files(world)
    data = world.open()
    assert world.post(f"{data}/plan", file=file, pixels=pixels).status_code == 400
    for name in ("secret.onnx", str((world.root.parent / "secret.onnx").resolve())):
        assert world.post(f"{data}/train", chosen=f"{name}@64/all").status_code == 400, "no plan has it"
