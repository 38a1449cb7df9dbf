"""Every module of ``timm.models``: does its smallest network load, and does every cut compute the same?

    python benchmarks/timm_families.py [MODULE ...]      all of them, or some; MODULE=NAME takes that network
    python benchmarks/timm_families.py --write FILE      the table into a page, between its markers
    python benchmarks/timm_families.py --jobs 2          two at a time

Of each module the network with the fewest parameters among those with published weights. Its weights are
random here (nothing is downloaded) and none is left constant, so that no block passes its input on unchanged.
It is loaded from a file of weights at 128 px, or at its own size where it takes no other.

Columns: stages; the largest difference of a map between OpenVINO and PyTorch; the largest difference between
timm's features and those that PyTorch computes from OpenVINO's map at each cut; both relative to the largest
value. One step of training behind the middle cut must change the weights there. Seconds are processor time
until the network is loaded for the first time.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

TOLERANCE = 1e-3
"""Of the largest value: float32 sums in another order, through up to a hundred layers."""

SMALL = 128
"""Pixels a side, where a network takes them."""

LIMIT = 1800
"""Seconds for one network, on a busy machine."""

AT_LEAST = 0.95
"""Share of the modules that must load and agree."""

BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"


def main() -> None:
    """One row per module; fails if too few agree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    import timm
    import torch

    from headstart.backbones.openvino import openvino

    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)  # also since processes are forked
    openvino()
    modules = asked.modules or timm.list_modules()
    lines = ["| module | network | px | stages | maps | features | s |", "|---|---|--:|--:|--:|--:|--:|"]
    print(*lines, sep="\n", flush=True)
    agree = refused = 0
    for module, found in zip(modules, in_processes(modules, jobs=asked.jobs), strict=True):
        agree, refused = agree + bool(found.get("agrees")), refused + ("reason" in found)
        lines.append(line_of(module, found))
        print(lines[-1], flush=True)
    counts = (
        f"{agree} of {len(modules)} modules ({agree / len(modules):.1%}) load and agree to {TOLERANCE:.0e}"
    )
    wrong = len(modules) - agree - refused
    lines += ["", f"{counts}; {refused} are refused, {wrong} do not agree. {versions()}"]
    print(*lines[-2:], sep="\n")
    if asked.write:
        page = asked.write.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        asked.write.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")
    assert agree >= AT_LEAST * len(modules), "too few families agree"


def versions() -> str:
    """What computed the table, and when."""
    from importlib.metadata import version

    from headstart.lesson.experiments import machine

    packages = ", ".join(f"{name} {version(name)}" for name in ("timm", "torch", "openvino"))
    return f"{date.today()}, {packages}, {machine()['cores']} cores of {machine()['processor']}."


def in_processes(modules: Sequence[str], *, jobs: int) -> Iterator[dict[str, Any]]:
    """What a process for each module finds out, in order, some of them at a time."""
    waiting, started = list(modules), list[Attempt]()
    while waiting or started:
        if waiting and sum(each.process.is_alive() for each in started) < jobs:
            started.append(Attempt(waiting.pop(0)))
        elif started[0].is_over():
            yield started.pop(0).result()
        else:
            started[0].process.join(1)


class Attempt:
    """A module's process, with a folder of its own."""

    def __init__(self, module: str) -> None:
        self.module, self.begun = module, time.monotonic()
        self.folder = tempfile.TemporaryDirectory(prefix="headstart-benchmark-")
        self.found = Path(self.folder.name) / "found.json"
        self.process = multiprocessing.get_context("fork").Process(target=report, args=(module, self.found))
        self.process.start()

    def is_over(self) -> bool:
        """Whether it has ended or has had its time."""
        return not self.process.is_alive() or time.monotonic() > self.begun + LIMIT

    def result(self) -> dict[str, Any]:
        """What it found out, or why it did not."""
        with self.folder:
            if self.process.is_alive():
                self.process.kill()
                return {"network": self.module, "reason": f"took more than {LIMIT} s"}
            if self.process.exitcode or not self.found.exists():
                return {"network": self.module, "reason": f"the process ended with {self.process.exitcode}"}
            facts: dict[str, Any] = json.loads(self.found.read_text(encoding="utf-8"))
            return facts


def report(module: str, path: Path) -> None:
    """Write a module's facts into a file, or why there are none; what is computed lies beside it."""
    os.environ["HEADSTART_CACHE"] = str(path.parent)
    try:
        facts = row_of(module)
    except Exception as error:
        facts = {
            "network": module,
            "reason": f"{type(error).__name__}: {error}".strip().splitlines()[0][:200],
        }
    path.write_text(json.dumps(facts), encoding="utf-8")


def line_of(module: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    module, name = module.partition("=")[0], found["network"]
    if "reason" in found:
        reason = found["reason"].replace("|", "\\|").replace("`", "'")
        return f"| {module} | {name} | | | | refused: `{reason}` | |"
    numbers = f"{found['maps']:.0e} | {found['features']:.0e} | {found['seconds']:.0f}"
    wrong = "" if found["agrees"] else " (does not agree)"
    return f"| {module} | {name} | {found['size']} | {found['stages']} | {numbers}{wrong} |"


def row_of(module: str) -> dict[str, Any]:
    """One module's facts, in this process."""
    from headstart.errors import HeadstartError

    module, _, name = module.partition("=")
    name = name or smallest(module)
    reason = ""
    for size in dict.fromkeys((SMALL, own_size(name))):
        try:
            return {"network": name, "size": size, **checked(name, size)}
        except HeadstartError as error:
            reason = str(error)
    return {"network": name, "reason": reason}


def smallest(module: str) -> str:
    """The network with the fewest parameters among those of a module that have published weights."""
    import timm
    import torch

    counts = {}
    for name in sorted({each.split(".")[0] for each in timm.list_models(module=module, pretrained=True)}):
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, num_classes=0)
        counts[name] = sum(weight.numel() for weight in model.parameters())
    return min(counts, key=lambda name: counts[name])


def own_size(name: str) -> int:
    """Pixels a side of its published weights' images."""
    import timm

    return int(timm.get_pretrained_cfg(name).input_size[-1])


def checked(name: str, size: int) -> dict[str, Any]:
    """Load it from a file and compare all its cuts."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from headstart.backbones import load_backbone
    from headstart.backbones.building import Recipe, make_model
    from headstart.backbones.openvino import openvino

    weights = Path(os.environ["HEADSTART_CACHE"]) / f"{name}.safetensors"
    model = made_random(make_model(Recipe(name, {}, None), size=size, name=name))
    save_file(
        {key: value.clone().contiguous() for key, value in model.state_dict().items()},
        weights,
        {"architecture": name},
    )
    begun = time.process_time()
    backbone = load_backbone(weights, size=size)
    seconds = time.process_time() - begun

    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(5))
    graph = openvino().Core().read_model(backbone.graph)
    graph.reshape({"image": [1, 3, size, size]})
    cached = openvino().Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image.numpy())
    staged = backbone.module()
    with torch.no_grad():
        whole = model(image)
        maps = {key: value.numpy() for key, value in staged.outputs(image).items()}
        features = [
            behind(staged, depth, torch.tensor(cached[stage.name]))
            for depth, stage in enumerate(backbone.stages, start=1)
        ]
    differ = max(
        float(np.abs(cached[key] - value).max() / np.abs(value).max()) for key, value in maps.items()
    )
    features += [torch.tensor(cached["features"])]
    ends = max(float((each - whole).abs().max() / whole.abs().max()) for each in features)
    middle = len(backbone.stages) // 2
    before = image.numpy() if middle == 0 else cached[backbone.stages[middle - 1].name]
    train(staged.after(middle), torch.tensor(before))
    return {
        "stages": len(backbone.stages),
        "maps": differ,
        "features": ends,
        "seconds": seconds,
        "agrees": max(differ, ends) < TOLERANCE,
    }


def behind(staged: Any, depth: int, found: Any) -> Any:
    """What PyTorch makes of the map of a stage."""
    for stage in staged.stages[depth:]:
        found = stage(found)
    return staged.pool(found)


def made_random(model: Any) -> Any:
    """The same network with no weight left constant, as new scales, shifts and layer scales are."""
    import torch

    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point() or value.numel() < 2 or value.min() != value.max():
                continue
            some = torch.rand(value.shape, generator=draw)
            if name.endswith(("running_mean", "bias")):
                value.copy_(some * 0.2 - 0.1)
            elif float(value.flatten()[0]) == 1:
                value.copy_(some * 0.4 + 0.8)
            else:  # a layer scale, or what starts as nothing
                value.copy_((some * 0.2 + 0.1) / (value[0].numel() ** 0.5 if value.ndim > 1 else 1))
    return model


def train(trainable: Any, activation: Any) -> None:
    """One step behind a cut, with everything that training switches on; most weights must change."""
    import torch

    before = {name: value.clone() for name, value in trainable.train().named_parameters()}
    optimizer = torch.optim.SGD(trainable.parameters(), lr=0.1)
    draw = torch.Generator().manual_seed(6)
    noise = torch.randn((4, *activation.shape[1:]), generator=draw) * activation.std()
    trainable(activation + noise).square().mean().backward()
    optimizer.step()
    moved = sum(not torch.equal(value, before[name]) for name, value in trainable.named_parameters())
    assert moved > 0.5 * len(before), f"of {len(before)} weights behind the middle cut {moved} were trained"


if __name__ == "__main__":
    main()
