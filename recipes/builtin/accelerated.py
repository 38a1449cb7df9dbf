"""The long training, on an accelerator where there is one: `python accelerated.py --data DIR`.

Both built-in backbones at once: a batch is drawn afresh, the teacher answers it once, and each student takes
a step on it. Everything that step s does follows from the plan and s. The students start from what they
inherit from the teacher (inherit.py), which `--begin` does beforehand on a processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import IO

import canvas
import losses
import networks
import numpy as np
import pictures
import probe
import torch
from inherit import inherit
from plans import LONG, LongPlan, Plan
from torch import Tensor
from train import Pace, State, learning_rate, state_of, update_average, write_checkpoint, write_weights

log = logging.getLogger("accelerated")
HERE = Path(__file__).parent
CHECKPOINT_SECONDS = 60.0  # the most that a kill can cost


class Teacher:
    """What the larger network says about a batch, in half precision where the device is quick at it."""

    def __init__(self, network: networks.Staged, classifier: tuple[Tensor, Tensor]) -> None:
        """`network` is on the device that is to answer; `classifier` is a weight [C, D] and a bias [C]."""
        self.network, self.classifier = network.eval(), classifier
        self.widths = [*network.widths(), network.network.num_features]

    @classmethod
    def read(cls, plan: LongPlan, data: Path, *, device: torch.device) -> Teacher:
        """The plan's teacher, as the folder `data` has it."""
        weights = data / plan.teacher_weights
        return cls(networks.build(plan.teacher, weights=weights).to(device), networks.classifier_of(weights))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> losses.Answers:
        """Its answers about images [n, 3, T, T], in float32."""
        kind = images.device.type
        with torch.autocast(kind, torch.float16, enabled=kind == "cuda"):
            maps = self.network(images)
            last = self.network.finish(maps[-1])
        return losses.answers([m.float() for m in maps], last.float())


def answers_of(student: networks.Staged, images: Tensor) -> losses.Answers:
    """A student's answers, computed in bfloat16 where the device is quick at it."""
    kind = images.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        maps = student(images)
        last = student.finish(maps[-1])
    return losses.answers([m.float() for m in maps], last.float())


def inherited(name: str, plan: LongPlan, data: Path, pixels: Tensor) -> networks.Staged:
    """What a student begins as, computed on the processor (some minutes).

    Args:
        name: of one of the plan's students.
        plan: the long plan.
        data: the folder with the teacher.
        pixels: uint8 [N, H, H, 3].
    """
    teacher = Teacher.read(plan, data, device=torch.device("cpu"))
    drawn = canvas.draw(
        0, batch=plan.begin_images, pictures=len(pixels), drawing=plan.drawing, seed=plan.seed
    )
    images = canvas.show(pixels, drawn, size=plan.inherit_size)
    return inherit(teacher.network, plan.students[name].architecture, images)


def prepare(state: State, plan: LongPlan, teacher: Teacher, pixels: Tensor) -> None:
    """Fit a student's adapters to what it and the teacher say about some first images."""
    size, teacher_size = plan.sizes_at(0.0)
    state.student.eval()
    mine, theirs = [], []
    for turn in range(plan.begin_images // plan.batch):
        drawn = canvas.draw(
            turn, batch=plan.batch, pictures=len(pixels), drawing=plan.drawing, seed=plan.seed
        ).to(pixels.device)
        with torch.no_grad():
            mine.append(answers_of(state.student, canvas.show(pixels, drawn, size=size)))
            theirs.append(teacher(canvas.show(pixels, drawn, size=teacher_size)))
    state.objective.prepare(_joined(mine), _joined(theirs))


def fresh_state(student: networks.Staged, own: Plan, teacher: Teacher, *, labels: int) -> State:
    """A student's state before step 0, its adapters untouched, on the student's device."""
    return state_of(student, own, teacher_widths=teacher.widths, classifier=teacher.classifier, labels=labels)


def _joined(parts: list[losses.Answers]) -> losses.Answers:
    maps = [torch.cat([p.maps[i] for p in parts]) for i in range(len(parts[0].maps))]
    return losses.answers(maps, torch.cat([p.last_map for p in parts]))


def step_of(
    state: State, own: Plan, images: Tensor, theirs: losses.Answers, *, rate: float
) -> dict[str, Tensor]:
    """One step of AdamW of one student; the loss and its terms, still on the device."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    total, terms = state.objective(answers_of(state.student, images), theirs, None)
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [*state.student.parameters(), *state.objective.parameters()]
    torch.nn.utils.clip_grad_norm_(parameters, own.clip)
    state.optimizer.step()
    state.step += 1
    update_average(state, own)
    return {"loss": total.detach(), **{k: v.detach() for k, v in terms.items()}}


class Clock:
    """How far a run is, from 0 to 1: by its steps, or by the time it may take, whichever is further.

    A schedule that is cut off has not let its learning rate fall; one that hurries has.
    """

    def __init__(self, plan: LongPlan, *, step: int, seconds: float | None) -> None:
        self._plan, self._seconds = plan, seconds
        spent = 0.0 if seconds is None else seconds * step / plan.steps
        self._started = time.monotonic() - spent

    def share(self, step: int) -> float:
        """The share of the schedule that is over before step `step`."""
        by_steps = step / self._plan.steps
        if self._seconds is None:
            return by_steps
        return max(by_steps, (time.monotonic() - self._started) / self._seconds)


def train(
    states: dict[str, State],
    plan: LongPlan,
    teacher: Teacher,
    pixels: Tensor,
    *,
    out: Path,
    seconds: float | None = None,
) -> None:
    """Run the plan to its end from where the states are; leaves NAME.safetensors in `out`.

    `out`/history.jsonl has a line per logged step. Weights are also written at each of the plan's `kept`
    shares: `choose` picks one of them afterwards.
    """
    first = next(iter(states.values()))
    clock, saved, pace = Clock(plan, step=first.step, seconds=seconds), time.monotonic(), Pace(plan.batch)
    share = clock.share(first.step)
    kept = [moment for moment in plan.kept if moment > share]
    for state in states.values():
        state.student.train()
    with (out / "history.jsonl").open("a") as history:
        while share < 1:
            terms = one_step(states, plan, teacher, pixels, share=share)
            if first.step % plan.log_every == 0:
                _note(first.step, terms, history=history)  # waits for the device
                pace.tick(plan.log_every)
                log.info(
                    "%d of %d steps at %d px, %s",
                    first.step,
                    plan.steps,
                    plan.sizes_at(share)[0],
                    pace.line(round((1 - share) * plan.steps)),
                )
            share = clock.share(first.step)
            if kept and share >= kept[0]:
                _write(states, plan, out, suffix=_suffix(kept.pop(0)))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                write_checkpoint({n: s.content() for n, s in states.items()}, out / "long.pt")
                saved = time.monotonic()
    write_checkpoint({n: s.content() for n, s in states.items()}, out / "long.pt")
    _write(states, plan, out)


def one_step(
    states: dict[str, State], plan: LongPlan, teacher: Teacher, pixels: Tensor, *, share: float
) -> dict[str, dict[str, Tensor]]:
    """Every student's next step, on one and the same batch; their losses."""
    step = next(iter(states.values())).step
    size, teacher_size = plan.sizes_at(share)
    drawn = canvas.draw(step, batch=plan.batch, pictures=len(pixels), drawing=plan.drawing, seed=plan.seed)
    drawn = drawn.to(pixels.device)
    with torch.no_grad():
        theirs = teacher(canvas.show(pixels, drawn, size=teacher_size))
        images = canvas.show(pixels, drawn, size=size)
    rate = learning_rate(
        int(share * plan.steps), steps=plan.steps, peak=plan.learning_rate, warm_up=plan.warm_up
    )
    return {name: step_of(s, plan.students[name], images, theirs, rate=rate) for name, s in states.items()}


def _note(step: int, terms: dict[str, dict[str, Tensor]], *, history: IO[str]) -> None:
    values = {name: {k: round(float(v), 5) for k, v in own.items()} for name, own in terms.items()}
    history.write(json.dumps({"step": step, **values}) + "\n")
    history.flush()


def _suffix(share: float) -> str:
    return f"-{round(100 * share)}"


def _write(states: dict[str, State], plan: LongPlan, out: Path, *, suffix: str = "") -> None:
    for name, state in states.items():
        write_weights(state, out / f"{name}{suffix}.safetensors", plan=plan.students[name])


def opened(plan: LongPlan, teacher: Teacher, pixels: Tensor, *, work: Path) -> dict[str, State]:
    """The students' states on the pictures' device, from the last checkpoint or before step 0."""
    device, checkpoint = pixels.device, work / "long.pt"
    found = torch.load(checkpoint, map_location=device, weights_only=True) if checkpoint.exists() else {}
    states = {}
    for name in plan.students:
        torch.manual_seed(plan.seed)
        student = networks.build(
            plan.students[name].architecture, weights=work / f"{name}-inherited.safetensors"
        )
        states[name] = fresh_state(student.to(device), plan.students[name], teacher, labels=plan.labels)
        if name in found:
            states[name].restore(found[name])
        else:
            prepare(states[name], plan, teacher, pixels)
    return states


def choose(plan: LongPlan, data: Path, *, work: Path) -> None:
    """Copy each student's best weights, by the linear probe, to NAME-best.safetensors."""
    held_out = pictures.load(data, "val", work=work)
    for name in plan.students:
        own = plan.students[name]
        sets = probe.probe_sets(
            np.asarray(held_out.pixels),
            held_out.labels,
            flowers=data / "flowers/train",
            size=own.shipped_size,
        )
        written = [work / f"{name}{suffix}.safetensors" for suffix in (*(_suffix(k) for k in plan.kept), "")]
        scores = {}
        for path in (p for p in written if p.exists()):
            scores[path] = probe.probe(networks.build(own.architecture, weights=path).eval().pooled, sets)
            log.info("%s: %s", path.name, {k: round(v, 4) for k, v in scores[path].items()})
        best = max(scores, key=lambda path: scores[path]["mean"])
        shutil.copyfile(best, work / f"{name}-best.safetensors")


def main() -> None:
    """Parse, begin, train, choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the archive and the teacher")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where everything is kept")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=LONG.images, help="to see in all")
    parser.add_argument("--seconds", type=float, help="have trained by then, on fewer images if need be")
    parser.add_argument("--begin", action="store_true", help="only what the students inherit")
    options, started = parser.parse_args(), time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options.work.mkdir(parents=True, exist_ok=True)
    plan, work, device = replace(LONG, images=options.images), options.work, torch.device(options.device)
    pixels = torch.from_numpy(np.array(pictures.load(options.data, "train", work=work).pixels))
    for name in plan.students:
        path = work / f"{name}-inherited.safetensors"
        if not path.exists():
            log.info("%s inherits from the teacher", name)
            networks.write(inherited(name, plan, options.data, pixels), path)
    if options.begin:
        return
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    pixels, teacher = pixels.to(device), Teacher.read(plan, options.data, device=device)
    states = opened(plan, teacher, pixels, work=work)
    log.info("%d steps of %d images on %s", plan.steps, plan.batch, device)
    left = None if options.seconds is None else options.seconds - (time.monotonic() - started)
    train(states, plan, teacher, pixels, out=work, seconds=left)
    choose(plan, options.data, work=work)


if __name__ == "__main__":
    main()
