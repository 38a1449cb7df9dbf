"""Train a built-in backbone: `python train.py NAME --data DIR`, again after a stop.

The loop is `train`; everything it does at step s follows from the config and s, so a run that was killed goes
on from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import math
import os
import statistics
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import losses
import networks
import numpy as np
import pictures
import probe
import teacher
import torch
from inherit import inherit
from plans import PLANS, Plan, pictures_per_epoch
from safetensors.torch import save_file
from torch import Tensor
from views import View, batch_of_views

log = logging.getLogger("train")
Gradients = tuple[list[Tensor], dict[str, float]]
HERE = Path(__file__).parent
CHECKPOINT_SECONDS = 120.0  # the most that a kill can cost


@dataclass
class State:
    """Everything that changes while training."""

    student: networks.Staged
    objective: losses.Objective
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int
    best: float

    def content(self) -> dict[str, object]:
        """All of it, as `torch.save` takes it."""
        return {
            "student": self.student.state_dict(),
            "objective": self.objective.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
        }

    def restore(self, content: dict[str, object]) -> None:
        """Become what `content` says."""
        self.student.load_state_dict(content["student"])
        self.objective.load_state_dict(content["objective"])
        self.optimizer.load_state_dict(content["optimizer"])
        for name, tensor in self.average.items():
            tensor.copy_(content["average"][name])  # type: ignore[index]
        self.step, self.best = content["step"], content["best"]  # type: ignore[assignment]


def write_checkpoint(content: object, path: Path) -> None:
    """Write a checkpoint; it replaces the last one only when complete."""
    unfinished = path.with_suffix(".partial")
    torch.save(content, unfinished)
    unfinished.replace(path)


@dataclass(frozen=True)
class Sources:
    """What a run reads: pictures, the teacher's stored answers, the sets of the probe."""

    pictures: pictures.Pictures
    store: teacher.TeacherStore
    teacher: networks.Staged
    classifier: tuple[Tensor, Tensor]
    probe_sets: list[probe.ProbeSet]


def learning_rate(step: int, *, steps: int, peak: float, warm_up: float) -> float:
    """Linear warm-up over a share `warm_up` of the steps, then half a cosine to a hundredth of the peak."""
    rising = max(1, round(warm_up * steps))
    if step < rising:
        return peak * (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def size_at(plan: Plan, image: int) -> int:
    """The student's input size, in pixels, when `image` images have been seen."""
    for phase in plan.phases:
        if image < phase.images:
            return phase.size
        image -= phase.images
    return plan.phases[-1].size


@dataclass(frozen=True)
class Share:
    """What one worker sees in one step: pictures `indices` in view `number`."""

    number: int
    view: View
    indices: np.ndarray


class Batches:
    """Step s's batch: which pictures, in which view, what the teacher said about them."""

    def __init__(self, plan: Plan, sources: Sources) -> None:
        self._plan, self._sources = plan, sources
        self._count = pictures_per_epoch(plan, len(sources.pictures))
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)
        self._views: dict[int, View] = {}

    def _view(self, number: int) -> View:
        """A view, drawn once; the teacher's answers to it are complete afterwards."""
        if number not in self._views:
            view = self._plan.draw(number, pictures=len(self._sources.pictures))
            self._sources.store.fill(number, view, self._sources.pictures.pixels)
            self._views[number] = view
        return self._views[number]

    def of(self, step: int) -> list[Share]:
        """Which pictures the workers take in step `step`, in which view."""
        plan = self._plan
        epoch, within = divmod(step * plan.batch, self._count)
        if epoch != self._epoch:
            self._order = np.random.default_rng((plan.seed, epoch)).permutation(len(self._sources.pictures))
            self._epoch = epoch
        number = plan.view_number(step, epoch=epoch)
        view = self._view(number)
        indices = self._order[within : within + plan.batch]
        return [Share(number, view, part) for part in np.array_split(indices, plan.workers)]

    def load(self, share: Share, *, size: int) -> tuple[Tensor, losses.Answers, Tensor]:
        """Images [n, 3, size, size], the teacher's answers and labels [n] of a share."""
        sources = self._sources
        images = batch_of_views(sources.pictures.pixels, share.view, share.indices, size=size)
        maps = sources.store.read(share.number, share.indices)
        with torch.no_grad():
            answers = losses.answers(maps, sources.teacher.finish(maps[-1]))
        return images, answers, torch.from_numpy(sources.pictures.labels[share.indices])


def first_images(plan: Plan, sources: Sources) -> Tensor:
    """Images float32 [n, 3, S, S] in the plan's views, in equal parts, on which the student inherits."""
    numbers = plan.turns or (plan.first_view,)
    chosen = np.random.default_rng(plan.seed).permutation(len(sources.pictures))[: plan.inherit_images]
    parts = [
        batch_of_views(
            sources.pictures.pixels,
            plan.draw(number, pictures=len(sources.pictures)),
            np.sort(part),
            size=plan.phases[0].size,
        )
        for number, part in zip(numbers, np.array_split(chosen, len(numbers)), strict=True)
    ]
    return torch.cat(parts)


def start(plan: Plan, sources: Sources, *, weights: Path | None) -> State:
    """The state before step 0: student, adapters, optimizer.

    `weights` may be of a narrower network of the same depth (`plan.start_architecture`): it is grown.
    Where the plan starts from the teacher, the student inherits from it in closed form (inherit.py).
    """
    torch.manual_seed(plan.seed)
    if plan.start == "teacher":
        student = inherit(sources.teacher, plan.architecture, first_images(plan, sources))
    else:
        student = networks.build(plan.start_architecture or plan.architecture, weights=weights)
    if plan.start_architecture not in (None, plan.architecture):
        student = networks.grow(student, plan.architecture, seed=plan.seed)
    widths = [*sources.store.layout.channels, sources.teacher.network.num_features]
    labels = int(sources.pictures.labels.max()) + 1
    return state_of(student, plan, teacher_widths=widths, classifier=sources.classifier, labels=labels)


def state_of(
    student: networks.Staged,
    plan: Plan,
    *,
    teacher_widths: list[int],
    classifier: tuple[Tensor, Tensor],
    labels: int,
) -> State:
    """The state before step 0 of a student that has its weights; its device is everything's."""
    device = next(student.parameters()).device
    student_widths = [*student.widths(), student.network.num_features]
    objective = losses.Objective(
        student_widths, teacher_widths, classifier=classifier, weights=plan.loss, labels=labels
    ).to(device)
    matrices = [p for p in (*student.parameters(), *objective.parameters()) if p.ndim > 1]
    vectors = [p for p in (*student.parameters(), *objective.parameters()) if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.99), fused=True)
    average = {k: v.detach().clone() for k, v in student.state_dict().items()}
    return State(student, objective, average, optimizer, 0, -1.0)


def prepare(state: State, batches: Batches, plan: Plan) -> None:
    """Fit the adapters to what student and teacher say about the first few batches."""
    state.student.train(plan.start is None)  # random weights have no BatchNorm statistics yet
    seen = []
    shares = [share for step in range(plan.prepare_batches) for share in batches.of(step)]
    for share in shares:
        images, theirs, _ = batches.load(share, size=plan.phases[0].size)
        with torch.no_grad():
            maps = state.student(images)
            seen.append((losses.answers(maps, state.student.finish(maps[-1])), theirs))
    joined = []
    for side in (0, 1):
        pile = [pair[side] for pair in seen]
        maps = [torch.cat([a.maps[i] for a in pile]) for i in range(len(pile[0].maps))]
        joined.append(losses.answers(maps, torch.cat([a.last_map for a in pile])))
    state.objective.prepare(joined[0], joined[1])


class Workers:
    """One thread per processor core, each with its share of the batch.

    Splitting every operation over the cores makes each of them wait for the slowest some hundred times a
    step, which a busy machine turns into a standstill; here they meet once a step. The workers' networks
    share their parameters and have BatchNorm statistics of their own, averaged after every step. The sum of
    the gradients is taken in the workers' order, so the result does not depend on timing.
    """

    def __init__(self, state: State, plan: Plan) -> None:
        self._plan, self._objective = plan, state.objective
        self._parameters = [*state.student.parameters(), *state.objective.parameters()]
        shared = {id(p): p for p in state.student.parameters()}
        copies = [copy.deepcopy(state.student, dict(shared)) for _ in range(plan.workers - 1)]
        self._students = [state.student, *copies]
        self._pool = ThreadPoolExecutor(plan.workers)

    def _gradients(self, student: networks.Staged, batches: Batches, share: Share, size: int) -> Gradients:
        images, theirs, labels = batches.load(share, size=size)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._plan.bfloat16):
            maps = student(images)
            last_map = student.finish(maps[-1])
        mine = losses.answers([m.float() for m in maps], last_map.float())
        total, terms = self._objective(mine, theirs, labels)
        gradients = torch.autograd.grad(total, self._parameters, allow_unused=True)
        values = {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in terms.items()}}
        complete = [
            torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, gradients, strict=True)
        ]
        return complete, values

    def run(self, batches: Batches, *, step: int) -> dict[str, float]:
        """Leave step `step`'s gradients in the parameters; the loss and its terms."""
        size = size_at(self._plan, step * self._plan.batch)
        for student in self._students:
            student.train()
        jobs = [
            self._pool.submit(self._gradients, student, batches, share, size)
            for student, share in zip(self._students, batches.of(step), strict=True)
        ]
        answers = [job.result() for job in jobs]
        for i, parameter in enumerate(self._parameters):
            parameter.grad = sum(gradients[i] for gradients, _ in answers) / len(answers)  # type: ignore[assignment]
        self._average_statistics()
        return {k: sum(values[k] for _, values in answers) / len(answers) for k in answers[0][1]}

    @torch.no_grad()
    def _average_statistics(self) -> None:
        for buffers in zip(*(s.buffers() for s in self._students), strict=True):
            if buffers[0].is_floating_point():
                mean = sum(buffers) / len(buffers)
                for buffer in buffers:
                    buffer.copy_(mean)

    def adopt_statistics(self) -> None:
        """Give every worker the state's BatchNorm statistics, after a checkpoint was loaded."""
        for student in self._students[1:]:
            for mine, first in zip(student.buffers(), self._students[0].buffers(), strict=True):
                mine.copy_(first)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def one_step(state: State, plan: Plan, *, batches: Batches, workers: Workers) -> dict[str, float]:
    """One step of AdamW on one batch, and of the moving average; the loss and its terms."""
    rate = learning_rate(state.step, steps=plan.steps, peak=plan.learning_rate, warm_up=plan.warm_up)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    terms = workers.run(batches, step=state.step)
    parameters = [*state.student.parameters(), *state.objective.parameters()]
    torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
    state.optimizer.step()
    state.step += 1
    update_average(state, plan)
    return terms


@torch.no_grad()
def update_average(state: State, plan: Plan) -> None:
    """Move the average of the weights (and of BatchNorm's statistics) towards the student's."""
    decay = min(plan.average_decay, state.step / (state.step + 10))
    current = state.student.state_dict()
    floating = [k for k, v in current.items() if v.is_floating_point()]
    torch._foreach_lerp_([state.average[k] for k in floating], [current[k] for k in floating], 1 - decay)


def averaged(state: State, plan: Plan) -> networks.Staged:
    """The student with the averaged weights, in eval mode."""
    network = networks.build(plan.architecture)
    network.load_state_dict(state.average)
    return network.eval()


def write_weights(state: State, path: Path, *, plan: Plan) -> None:
    """The averaged weights in half precision, in timm's naming, with what loading needs as metadata."""
    tensors = {k.removeprefix("network."): v.contiguous() for k, v in state.average.items()}
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    metadata = {
        "architecture": plan.architecture,
        "timm_kwargs": json.dumps({"pad_type": "same", "num_classes": 0}),
        "input_size": str(plan.shipped_size),
        "interpolation": "bicubic",
        "mean": "0.5,0.5,0.5",
        "std": "0.5,0.5,0.5",
        "license": "Apache-2.0",
    }
    unfinished = path.with_suffix(".partial")
    save_file(tensors, unfinished, metadata=metadata)
    unfinished.replace(path)


class Pace:
    """Images per second and seconds left, from the median step: a pause of hours does not disturb it."""

    def __init__(self, batch: int) -> None:
        self._batch, self._last = batch, time.monotonic()
        self._durations: deque[float] = deque(maxlen=100)

    def tick(self, steps: int = 1) -> None:
        """Note that a step, or some of them, have ended."""
        now = time.monotonic()
        self._durations.append((now - self._last) / steps)
        self._last = now

    def line(self, steps_left: int) -> str:
        """For the log: throughput and time left."""
        seconds = statistics.median(self._durations)
        return f"{self._batch / seconds:.0f} images/s, {seconds * steps_left / 60:.0f} min left"


def train(plan: Plan, sources: Sources, *, out: Path, weights: Path | None) -> State:
    """Run the plan to its end, from `out`'s checkpoint if there is one; leaves `out`/best.safetensors.

    `out`/history.jsonl has a line per logged step and per probe.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    state, batches, pace = start(plan, sources, weights=weights), Batches(plan, sources), Pace(plan.batch)
    if checkpoint.exists():
        state.restore(torch.load(checkpoint, weights_only=True))
        log.info("going on at step %d of %d", state.step, plan.steps)
    else:
        prepare(state, batches, plan)
    workers = Workers(state, plan)
    workers.adopt_statistics()
    saved = time.monotonic()
    with contextlib.closing(workers), (out / "history.jsonl").open("a") as history:
        while state.step < plan.steps:
            terms = one_step(state, plan, batches=batches, workers=workers)
            pace.tick()
            if state.step % plan.log_every == 0 or state.step <= plan.log_first:
                history.write(json.dumps({"step": state.step, **terms}) + "\n")
                history.flush()
            if state.step % plan.log_every == 0:
                shown = " ".join(f"{k} {v:.3f}" for k, v in terms.items())
                seen = state.step * plan.batch
                log.info("%d images, %s; %s", seen, shown, pace.line(plan.steps - state.step))
            if state.step % plan.probe_every == 0 or state.step == plan.steps:
                _select(state, plan, sources, out=out, history=history)
            if time.monotonic() - saved > CHECKPOINT_SECONDS or state.step == plan.steps:
                write_checkpoint(state.content(), checkpoint)
                saved = time.monotonic()
    return state


def _select(state: State, plan: Plan, sources: Sources, *, out: Path, history: object) -> None:
    """Probe the averaged weights; keep them as best.safetensors if nothing before was better."""
    if not sources.probe_sets:
        return
    scores = probe.probe(averaged(state, plan).pooled, sources.probe_sets)
    log.info("probe at %d images: %s", state.step * plan.batch, {k: round(v, 4) for k, v in scores.items()})
    history.write(json.dumps({"step": state.step, "probe": scores}) + "\n")  # type: ignore[attr-defined]
    write_weights(state, out / "last.safetensors", plan=plan)
    if scores["mean"] >= state.best:
        state.best = scores["mean"]
        write_weights(state, out / "best.safetensors", plan=plan)


def open_sources(plan: Plan, data: Path, *, work: Path) -> Sources:
    """Pictures, teacher and probe sets as `data` has them."""
    weights = data / plan.teacher_weights
    network = networks.build(plan.teacher, weights=weights).eval()
    forward = teacher.in_openvino(network, size=plan.teacher_size)
    train_pictures = pictures.load(data, "train", work=work)
    held_out = pictures.load(data, "val", work=work)
    store = teacher.TeacherStore(
        work / f"teacher-{plan.teacher_size}-seed{plan.view_seed}",
        layout=teacher.Layout(tuple(network.widths())),
        forward=forward,
        size=plan.teacher_size,
    )
    sets = probe.probe_sets(
        np.asarray(held_out.pixels), held_out.labels, flowers=data / "flowers/train", size=plan.shipped_size
    )
    return Sources(train_pictures, store, network, networks.classifier_of(weights), sets)


def run(name: str, data: Path, *, work: Path) -> None:
    """Train the plan `name`, after the plan it starts from where that has left no weights yet."""
    plan = PLANS[name]
    weights = plan.start_weights(data, work)
    if weights is not None and not weights.exists():
        run(str(plan.start), data, work=work)
    out = work / name
    out.mkdir(parents=True, exist_ok=True)
    (out / "plan.json").write_text(json.dumps(asdict(plan), indent=1) + "\n")
    log.info("plan %s: %d steps of %d images", name, plan.steps, plan.batch)
    train(plan, open_sources(plan, data, work=work), out=out, weights=weights)


def main() -> None:
    """Parse, set up, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("plan", choices=sorted(PLANS))
    parser.add_argument("--data", type=Path, required=True, help="folder with the archive and the teacher")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where everything is kept")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)  # the workers are what runs in parallel
    torch.set_flush_denormal(True)
    options.work.mkdir(parents=True, exist_ok=True)
    (options.work / "pid").write_text(f"{os.getpid()}\n")
    run(options.plan, options.data, work=options.work)


if __name__ == "__main__":
    main()
