"""Fixtures: private folders for every test, small labelled images that a network can tell apart, Chromium."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from browsing import Visit, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

with contextlib.suppress(ImportError):
    import triton  # noqa: F401 (before TensorFlow: after it, a CUDA build of PyTorch ends the process)

CLASSES = ("bars", "discs", "squares")

AVOIDABLE = ("needs ", "could not import ")
"""How the reason of a skip begins where an installation was all that it wanted."""


def fail_if_avoidable(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With CI set, what was skipped for want of something installable has failed."""
    if not (report.skipped and os.environ.get("CI")) or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if reason.removeprefix("Skipped: ").startswith(AVOIDABLE):
        report.outcome, report.longrepr = "failed", f"skipped, which CI does not allow: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hold tests to what `fail_if_avoidable` says."""
    report = yield
    fail_if_avoidable(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Hold whole files to it."""
    report = yield
    fail_if_avoidable(report)
    return report


@pytest.fixture(scope="session")
def compiled_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What OpenVINO has compiled for any test of any worker: compiling is half of a small fit."""
    base = tmp_path_factory.getbasetemp()  # a worker of xdist has its own, inside that of them all
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def private_folders(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    compiled_models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The feature cache and the runs store of a test are its own; so is the working directory.

    Compiled models alone are shared, but for tests that are marked with `compiles`.
    """
    root = tmp_path_factory.mktemp("headstart")
    if request.node.get_closest_marker("compiles") is None:
        (root / "cache").mkdir()
        with contextlib.suppress(OSError):  # where links are not allowed every test compiles its own
            (root / "cache" / "compiled").symlink_to(compiled_models)
    for variable, name in (("HEADSTART_CACHE", "cache"), ("HEADSTART_HOME", "home")):
        monkeypatch.setenv(variable, str(root / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = root / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return root


@contextlib.contextmanager
def shared_folders(root: Path, compiled_models: Path) -> Iterator[None]:
    """Cache, home and working directory in ``root``, for what a fixture of a whole module makes."""
    (root / "cache").mkdir()
    (root / "work").mkdir()
    with contextlib.suppress(OSError):
        (root / "cache" / "compiled").symlink_to(compiled_models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(root / "cache"))
        patch.setenv("HEADSTART_HOME", str(root / "home"))
        patch.chdir(root / "work")
        yield


def draw(kind: str, *, seed: int, side: int = 72) -> Image.Image:
    """One image of a class: a shape of random colour and place on a random background."""
    random = np.random.default_rng([seed, CLASSES.index(kind)])
    background, colour = random.integers(0, 110, 3), random.integers(140, 256, 3)
    image = Image.fromarray(
        np.clip(background + random.normal(0, 8, (side, side, 3)), 0, 255).astype(np.uint8)
    )
    pen = ImageDraw.Draw(image)
    x, y = random.integers(side // 8, side // 2, 2)
    extent = int(random.integers(side // 4, side // 2))
    fill = tuple(int(value) for value in colour)
    if kind == "discs":
        pen.ellipse((x, y, x + extent, y + extent), fill=fill)
    elif kind == "squares":
        pen.rectangle((x, y, x + extent, y + extent), outline=fill, width=4)
    else:
        for offset in range(0, side, 12):
            pen.line((0, offset + int(y) % 12, side, offset + int(y) % 12), fill=fill, width=4)
    return image


def write_photos(
    folder: Path, *, per_class: int = 16, classes: tuple[str, ...] = CLASSES, seed: int = 0
) -> Path:
    """A folder of class folders of JPEGs."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            (folder / name / f"{number:03}.jpg").write_bytes(_jpeg(name, 1000 * seed + number))
    return folder


@cache
def _jpeg(kind: str, seed: int) -> bytes:
    with io.BytesIO() as file:
        draw(kind, seed=seed).save(file, "JPEG", quality=90)
        return file.getvalue()


@pytest.fixture
def make_photos() -> Callable[..., Path]:
    """`write_photos`, for tests that want folders of their own."""
    return write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """48 labelled photographs in three classes."""
    return write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Path:
    """The folder of a fit of photographs like `photos`, at 64 pixels in float32; to be read."""
    import headstart

    root = tmp_path_factory.mktemp("small")
    with shared_folders(root, compiled_models):
        return headstart.fit(
            write_photos(root / "photos"), backbone="builtin", size=64, precision="f32", out=root / "run"
        )[1].path


@pytest.fixture
def own_run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of `small_run`."""
    return Path(shutil.copytree(small_run, tmp_path / "own-run"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one core: two are shared with other tests."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; skips where it is missing."""
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens pages that reach our own servers alone; in the end none of them may have had a complaint."""
    visits: list[Visit] = []

    def begin(**options: Any) -> Visit:
        visits.append(Visit.begin(browser, **options))
        return visits[-1]

    yield begin
    for made in visits:
        made.context.close()
    assert [complaint for made in visits for complaint in made.complaints] == []
