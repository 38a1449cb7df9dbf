"""A small stand-in for data and teacher: the whole recipe in seconds, for tests and for trying a change."""

from __future__ import annotations

import json
from pathlib import Path

import accelerated
import networks
import numpy as np
import teacher
import torch
from pictures import Pictures
from PIL import Image
from plans import LongPlan, Phase, Plan
from torch import nn
from train import Sources, State

PLAN = Plan(
    architecture="mobilenetv2_035",
    teacher="mobilenetv2_035",
    phases=(Phase(64, 64), Phase(64, 96)),
    shipped_size=96,
    teacher_size=96,
    views=2,
    batch=16,
    learning_rate=2e-4,
    prepare_batches=4,
    average_decay=0.9,
    log_first=1_000_000,
    probe_every=1_000_000,
)
LONG = LongPlan(
    {"student": PLAN},
    teacher=PLAN.teacher,
    images=12 * 16,
    sizes=((0.6, 64, 96), (1.0, 96, 96)),
    batch=16,
    learning_rate=1e-3,
    begin_images=32,
    log_every=1,
    kept=(0.5,),
)
_CLASSES = 10


def some_pictures(count: int) -> Pictures:
    """Smooth coloured noise, uint8 [count, 64, 64, 3], with labels that mean nothing."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, size=(count, 8, 8, 3), dtype=np.uint8)
    pixels = [np.asarray(Image.fromarray(c).resize((64, 64), Image.Resampling.BILINEAR)) for c in coarse]
    return Pictures(np.stack(pixels), random.integers(0, _CLASSES, size=count))


def some_teacher(architecture: str = PLAN.teacher) -> networks.Staged:
    """A random network whose BatchNorms have seen the pictures, so that its answers differ."""
    torch.manual_seed(1)
    network = networks.build(architecture)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over what it sees
    pixels = torch.from_numpy(some_pictures(64).pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        network.train().pooled(pixels)
    return network.eval()


def sources(work: Path) -> Sources:
    """A hundred pictures, a random teacher in float32 and no probe."""
    network = some_teacher()
    generator = torch.Generator().manual_seed(2)
    classifier = (torch.randn(_CLASSES, 1280, generator=generator) * 0.02, torch.zeros(_CLASSES))
    layout = teacher.Layout(tuple(network.widths()))
    store = teacher.TeacherStore(
        work / "teacher", layout=layout, forward=teacher.in_torch(network), size=PLAN.teacher_size
    )
    return Sources(some_pictures(100), store, network, classifier, [])


def long_states(work: Path) -> tuple[dict[str, State], accelerated.Teacher, torch.Tensor]:
    """What `accelerated.train` needs: one student of random weights, the random teacher, the pictures."""
    network = some_teacher()
    generator = torch.Generator().manual_seed(2)
    classifier = (torch.randn(_CLASSES, 1280, generator=generator) * 0.02, torch.zeros(_CLASSES))
    answering, pixels = accelerated.Teacher(network, classifier), torch.from_numpy(some_pictures(100).pixels)
    torch.manual_seed(3)
    networks.write(networks.build(PLAN.architecture), work / "student-inherited.safetensors")
    return accelerated.opened(LONG, answering, pixels, work=work), answering, pixels


def losses_of(folder: Path, student: str | None = None) -> list[float]:
    """The logged losses of a run, of one student where there are several."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [line[student]["loss"] if student else line["loss"] for line in lines if "probe" not in line]
