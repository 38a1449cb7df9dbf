"""Trains candidates on one split; one pass over the images per backbone feeds every depth, head and seed."""

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.backbones import Backbone, load_backbone
from headstart.backbones.building import require_timm
from headstart.backbones.registry import is_graph
from headstart.backbones.runtimes import Runtime, select
from headstart.comparisons.analysis import choose
from headstart.comparisons.command_lines import SETTINGS, settings_of
from headstart.comparisons.passes import Pass, load_group, look
from headstart.comparisons.schedule import Deadline, Over, forecast, shrink
from headstart.comparisons.storage import save_comparison
from headstart.comparisons.trials import Trainer, TrialResult
from headstart.comparisons.values import Candidate, Comparison, disambiguate, same_split
from headstart.costs import Timings, parse_budget
from headstart.costs.budgets import interleaved
from headstart.costs.timings import remember
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.images import parse_views
from headstart.distributed import Place, place
from headstart.errors import BackboneError, DatasetError, OptionError
from headstart.heads.tasks import only_single_label
from headstart.runs import (
    HEADS,
    LAYERS,
    FitConfig,
    check_place,
    new_id,
    refuse_others,
    seconds_since,
    timestamp,
)
from headstart.runs.callbacks import Callback, Callbacks, PhaseTimer
from headstart.runs.config import split_size
from headstart.training.notebook import notebook_bars
from headstart.training.recorder import seen_in_pass
from headstart.training.resolving import refuse_weights


def grid(
    *,
    backbones: Sequence[str] = (Candidate.backbone,),
    depths: Sequence[int | str] = ("all",),
    heads: Sequence[str] = ("ridge",),
    scratch: bool = False,
    images: Sequence[int | None] = (None,),
    size: int | None = None,
    layers: str = "auto",
    views: int | str = 1,
    epochs: int | None = None,
    architecture: str | None = None,
    preprocess: str | None = None,
) -> tuple[Candidate, ...]:
    """Every combination that differs: heads matter only where everything is frozen.

    Args:
        backbones: names or weights files.
        depths: what `fit` takes for ``freeze``; each must mean something for every backbone.
        heads: "ridge", "softmax" or both.
        scratch: every backbone from random weights too.
        images: training images of each class, at most; None for all.
        size: pixels a side; None for each backbone's own.
        layers: what a ridge head reads: "auto", "last" or "all".
        views: renderings of each training image.
        epochs: of whatever is trained in epochs; None for the defaults of `fit`.
        architecture: for weights files that do not say.
        preprocess: for ONNX and Keras files that do not say what their pixels are.

    Raises:
        OptionError: a value that cannot be, or nothing to compare.
        BackboneError: a backbone that is not there.
    """
    _check_choices("heads", heads, known=HEADS)
    _check_choices("layers", [layers], known=LAYERS)
    if not backbones or not depths or not heads or not images:
        raise OptionError("nothing to compare: give at least one backbone, depth, head and number of images")
    if any(count is not None and count < 1 for count in images):
        raise OptionError(f"images {list(images)}: expected numbers from 1 up, or all")
    names = tuple(view.name for view in parse_views(views))
    found = []
    for backbone, side in map(split_size, backbones):
        pixels = preprocess if is_graph(backbone) else None
        network = load_backbone(backbone, size=side or size, architecture=architecture, preprocess=pixels)
        stages = len(network.stages)
        basis = Candidate(
            backbone,
            network.preprocess.size,
            stages,
            stages,
            layers=layers,
            views=names,
            epochs=epochs,
            architecture=architecture,
            preprocess=pixels,
        )
        for depth in (network.depth(freeze) for freeze in depths):
            if depth < stages:
                found.append(replace(basis, depth=depth, layers="last"))
            else:
                found += [_headed(basis, head) for head in heads]
        if scratch:
            found.append(replace(basis, depth=0, layers="last", pretrained=False))
    return tuple(dict.fromkeys(replace(candidate, images=count) for candidate in found for count in images))


def _headed(basis: Candidate, head: str) -> Candidate:
    """A candidate with everything frozen; what its head has no use for is left out."""
    if head == "ridge":
        return replace(basis, head=head, epochs=None)
    return replace(basis, head=head, layers="last")


def _check_choices(option: str, values: Iterable[str], *, known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise OptionError(f"{option} {value!r}: expected one of {', '.join(known)}")


def compare(
    source: Any,
    candidates: Sequence[Candidate],
    *,
    seeds: int = 3,
    out: str | Path | None = None,
    budget: float | str | None = None,
    on: str | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> Comparison:
    """Train every candidate with every seed on one split, and save what came of it.

    The split is fixed by the images' contents and the same for all. A seed decides which training images a
    limited number is (the fewer are always among the more), the order in which images are seen, and the first
    weights of what starts from random ones. Candidates with nothing random in them are trained once.

    Args:
        source: what `fit` takes.
        candidates: see `grid`.
        seeds: trainings of each candidate, from seed 0 up.
        out: the comparison's folder; None for ``comparisons/ID`` in the working directory.
        budget: seconds, or "30s", "2m", of the whole comparison: seeds and then candidates are left out to
            keep it, a training is stopped before its last epoch, and images are left out where nothing else
            helps; which is a note of the comparison.
        on: "ray" for a Ray cluster: images are looked at there, and every training is a task of its own; None
            for this process.
        callbacks: what watches the comparison; its phases are ``features``, ``check`` and ``trials``.
        settings: as for `fit`, for all candidates: ``runtime``, ``precision``, ``validation``, ``test``,
            ``near_duplicates``, ``groups``, ``batch_size``, ``learning_rate`` and ``class_weights``.

    Raises:
        UserError: the input or an option cannot work.
    """
    started = time.perf_counter()
    candidates, notes = _with_default(candidates)
    candidates = disambiguate(candidates)
    common = _checked(candidates, seeds=seeds, settings=settings)
    comparison_id = new_id("comparison")
    path = (Path(out) if out else Path("comparisons") / comparison_id).absolute()
    check_place(path)
    limit, watch = parse_budget(budget), Callbacks([*notebook_bars(), *callbacks])
    if on is not None and limit is not None:
        raise OptionError(f"on={on} trains all candidates at once, so a budget leaves none out; drop one")
    dataset = read_dataset(source, groups=common.groups)
    only_single_label(dataset.task, "comparing", instead="fit one after the other")
    refuse_weights(dataset, "comparing")
    if limit is not None:
        dataset = interleaved(dataset)  # of which any beginning can be compared on
    runtime = select(common.runtime, precision=common.precision)
    common = replace(common, data=dataset.name, runtime=runtime.name, precision=runtime.precision)
    groups = _groups(candidates)
    networks = {
        candidate: network for group in groups for network in [load_group(group)] for candidate in group
    }
    foreseen = forecast(
        dataset, groups, networks=networks, common=common, runtime=runtime, timings=Timings.load()
    )
    spent = time.perf_counter() - started
    schedule = shrink(groups, foreseen, seeds=seeds, budget=limit, spent=spent)
    deadline = Deadline(schedule, limit, started)
    with place(on) as where:
        expected = where.estimated(schedule.expected, images=len(dataset))
        predicted = expected.range(spent=spent)
        watch.on_estimate(predicted, expected.phases)
        passes, results = _train_all(
            dataset, networks, common=common, runtime=runtime, deadline=deadline, watch=watch, where=where
        )
    comparison = _comparison(dataset, passes, results, comparison_id=comparison_id, path=path)
    comparison = replace(
        _chosen(comparison, results),
        predicted_seconds=predicted.to_dict(),
        notes=(*notes, *([where.said] if where.said else []), *deadline.notes(), *comparison.notes),
        settings=settings_of(candidates[0].config(common, seed=0)),
        seconds=seconds_since(started),
    )
    return save_comparison(comparison, path=path)


def _with_default(candidates: Sequence[Candidate]) -> tuple[list[Candidate], tuple[str, ...]]:
    """Candidates of the default network under its name, and what is to be said of it."""
    if all(each.backbone != Candidate.backbone for each in candidates):
        return list(candidates), ()
    network = load_backbone(Candidate.backbone)
    named = [replace(c, backbone=network.name) if c.backbone == Candidate.backbone else c for c in candidates]
    return named, network.notes


def _checked(candidates: Sequence[Candidate], *, seeds: int, settings: Mapping[str, Any]) -> FitConfig:
    """The settings that all candidates share, where all can work with them.

    Raises:
        OptionError: there is nothing to compare, or an option cannot be.
        MissingExtra: stages are to be fine-tuned, and what trains them is not installed.
    """
    if not candidates:
        raise OptionError("nothing to compare: no candidate")
    if seeds < 1:
        raise OptionError(f"seeds {seeds}: expected 1 or more")
    refuse_others(settings, known=SETTINGS)
    common = FitConfig.from_options(**settings).checked()
    for each in candidates:
        each.config(common, seed=0).checked()
    fine_tuned = [candidate.name for candidate in candidates if candidate.fine_tuned]
    if fine_tuned:
        require_timm(f"training {fine_tuned[0]}")
    return common


def _train_all(
    dataset: Dataset,
    networks: Mapping[Candidate, Backbone],
    *,
    common: FitConfig,
    runtime: Runtime,
    deadline: Deadline,
    watch: Callback,
    where: Place,
) -> tuple[list[Pass], list[TrialResult]]:
    """Every group's pass and trainings, as far as the time goes; the first training always begins."""
    groups, seeds = deadline.schedule.groups, deadline.schedule.seeds
    total = sum(seeds if each.random else 1 for group in groups for each in group)
    passes: list[Pass] = []
    results: list[TrialResult] = []
    for group in groups:
        without = f"without {', '.join(candidate.name for candidate in group)}"
        if results and not deadline.allows(group):
            deadline.skip(without)
            continue
        try:
            looked = _look(
                dataset,
                group,
                network=networks[group[0]],
                common=common,
                runtime=runtime,
                deadline=deadline,
                first=not results,
                watch=watch,
                where=where,
            )
        except Over:
            deadline.skip(without)
            continue
        except (BackboneError, DatasetError, OptionError) as error:
            if not results:
                raise
            deadline.fail(f"{without}: {error}")
            continue
        dataset = looked.prepared.dataset  # the first pass may leave some images out, for all
        passes.append(looked)
        same_split([(p.network.name, p.prepared.fingerprint) for p in passes])
        count = _counter(watch, done=len(results), total=total)
        trainer = Trainer(group, looked, common=common, deadline=deadline)
        results += trainer.train(first=not results, count=count)
    return passes, results


def _look(
    dataset: Dataset,
    group: Sequence[Candidate],
    *,
    network: Backbone,
    common: FitConfig,
    runtime: Runtime,
    deadline: Deadline,
    first: bool,
    watch: Callback,
    where: Place,
) -> Pass:
    """One group's pass; the first one leaves images out where all would take too long.

    Raises:
        Over: the time is up, and there are results already.
    """
    config, timer = group[0].config(common, seed=0), PhaseTimer()
    alarm = deadline.first_pass(group, classes=len(dataset.classes)) if first else deadline.any_pass()
    looked = look(
        dataset,
        group,
        config=config,
        runtime=runtime,
        network=network,
        callbacks=[timer, watch, alarm],
        place=where,
    )
    remember(seen_in_pass(timer, looked.prepared, config))
    return looked


def _groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that share a pass over the images, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in dict.fromkeys(candidates):
        key = (candidate.untrained, candidate.views)
        groups.setdefault(key, []).append(candidate)
    return list(groups.values())


def _counter(watch: Callback, *, done: int, total: int) -> Callable[[int], None]:
    def count(more: int) -> None:
        watch.on_progress("trials", done + more, total)

    return count


def _comparison(
    dataset: Dataset,
    passes: Sequence[Pass],
    results: Sequence[TrialResult],
    *,
    comparison_id: str,
    path: Path,
) -> Comparison:
    prepared = passes[0].prepared
    sides = {split: len(prepared.images(split)) for split in ("train", "validation", "test")}
    labels = prepared.labels(prepared.images("validation"))
    return Comparison(
        id=comparison_id,
        path=path,
        created=timestamp(),
        data=dataset.name,
        source=dataset.origin,
        classes=dataset.classes,
        images={**sides, "skipped": prepared.counts["skipped"]},
        split=prepared.fingerprint,
        labels=tuple(int(label) for label in labels),
        trials=tuple(result.trial for result in results),
        passes=tuple(p.to_dict() for p in passes),
        notes=(*prepared.report.headline(), *([_BEST_EPOCH] if _keeps_best(results) else [])),
        versions={
            "headstart": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "openvino", "pillow")},
        },
    )


_BEST_EPOCH = (
    "fine-tuned trainings are shown at the epoch that did best on the validation images, which flatters them "
    "a little beside heads alone"
)


def _keeps_best(results: Sequence[TrialResult]) -> bool:
    """Whether any training chose its epoch on the images that it is compared on."""
    return any(each.trial.candidate.fine_tuned for each in results)


def _chosen(comparison: Comparison, results: Sequence[TrialResult]) -> Comparison:
    """With its choice, and the test images read for that candidate alone."""
    if all(candidate.images is not None for candidate in comparison.candidates):
        return comparison
    choice = choose(comparison)
    read = next((r.test for r in results if r.trial.candidate == choice.candidate and r.test), None)
    if read is not None:
        test = {"images": read.images, "accuracy": read.accuracy, "interval": list(read.interval)}
        choice = replace(choice, test=test)
    return replace(comparison, choice=choice)
