"""Trains candidates on one split; one prefix pass per backbone feeds every depth, head and seed."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headstart import __version__, metrics
from headstart.backbones import Backbone, load_backbone
from headstart.comparisons import learning
from headstart.comparisons.analysis import choose
from headstart.comparisons.passes import Pass, load_group, look
from headstart.comparisons.schedule import Deadline, Groups, Over, Schedule, forecast, shrink
from headstart.comparisons.storage import save_comparison
from headstart.comparisons.subsets import limit_images
from headstart.comparisons.values import Candidate, Comparison, Trial, same_split
from headstart.dataset import Dataset, read_dataset
from headstart.errors import OptionError
from headstart.features import Progress
from headstart.fitting import HEADS, TAPS, Prepared, epochs_for, predict_images, train
from headstart.fitting.training import Stop
from headstart.images import parse_views
from headstart.plans import Rates, RateStore, parse_budget
from headstart.plans.clock import ending
from headstart.plans.memory import Observation
from headstart.plans.observing import Watch
from headstart.runs import RunConfig, new_id, seconds_since, timestamp
from headstart.runtimes import Runtime, select


@dataclass(frozen=True)
class Settings:
    """What all candidates of a comparison have in common."""

    data: str
    runtime: Runtime
    seeds: int
    validation: float
    test: float
    batch_size: int
    learning_rate: float | None
    class_weights: str | None

    def config(self, candidate: Candidate, *, seed: int) -> RunConfig:
        """What `fit` would be told for the same training."""
        thawed = candidate.depth < candidate.stages
        return RunConfig(
            data=self.data,
            backbone=candidate.backbone,
            size=candidate.size,
            depth=candidate.depth,
            stages=candidate.stages,
            head=candidate.head,
            taps=None,
            views=candidate.views,
            pretrained=candidate.pretrained,
            architecture=candidate.architecture,
            runtime=self.runtime.name,
            precision=self.runtime.precision,
            epochs=epochs_for(
                candidate.epochs, head=candidate.head, thawed=thawed, scratch=not candidate.pretrained
            ),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            class_weights=self.class_weights,
            validation=self.validation,
            test=self.test,
            seed=seed,
        )


def grid(
    *,
    backbones: Sequence[str] = ("builtin",),
    depths: Sequence[int | str] = ("all",),
    heads: Sequence[str] = ("ridge",),
    scratch: bool = False,
    images: Sequence[int | None] = (None,),
    size: int | None = None,
    taps: str = "auto",
    views: int | str = 1,
    epochs: int | None = None,
    architecture: str | None = None,
) -> tuple[Candidate, ...]:
    """Every combination that differs: heads matter only where everything is frozen.

    Args:
        backbones: names or weights files.
        depths: what `fit` takes for ``freeze``; each must mean something for every backbone.
        heads: "ridge", "softmax" or both.
        scratch: every backbone from random weights too.
        images: training images of each class, at most; None for all.
        size: pixels a side; None for each backbone's own.
        taps: what a ridge head reads: "auto", "last" or "all".
        views: renderings of each training image.
        epochs: of whatever is trained in epochs; None for the defaults of `fit`.
        architecture: for weights files that do not say.

    Raises:
        OptionError: a value that cannot be, or nothing to compare.
        BackboneError: a backbone that is not there.
    """
    _check_choices("heads", heads, known=HEADS)
    _check_choices("taps", [taps], known=TAPS)
    if not backbones or not depths or not heads or not images:
        raise OptionError("nothing to compare: give at least one backbone, depth, head and number of images")
    if any(count is not None and count < 1 for count in images):
        raise OptionError(f"images {list(images)}: expected numbers from 1 up, or all")
    names = tuple(view.name for view in parse_views(views))
    found = []
    for backbone in backbones:
        network = load_backbone(backbone, size=size, architecture=architecture)
        stages = len(network.stages)
        basis = Candidate(str(backbone), network.preprocess.size, stages, stages, taps=taps, views=names)
        basis = replace(basis, epochs=epochs, architecture=architecture)
        for depth in (network.depth(freeze) for freeze in depths):
            if depth < stages:
                found.append(replace(basis, depth=depth, taps="last"))
            else:
                found += [_headed(basis, head) for head in heads]
        if scratch:
            found.append(replace(basis, depth=0, taps="last", pretrained=False))
    return tuple(dict.fromkeys(replace(candidate, images=count) for candidate in found for count in images))


def _headed(basis: Candidate, head: str) -> Candidate:
    """A candidate with everything frozen; what its head has no use for is left out."""
    if head == "ridge":
        return replace(basis, head=head, epochs=None)
    return replace(basis, head=head, taps="last")


def _check_choices(option: str, values: Iterable[str], *, known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise OptionError(f"{option} {value!r}: expected one of {', '.join(known)}")


def compare(
    source: Any,
    candidates: Sequence[Candidate],
    *,
    seeds: int = 3,
    runtime: str = "auto",
    precision: str = "auto",
    validation: float = 0.15,
    test: float = 0.15,
    batch_size: int = 32,
    learning_rate: float | None = None,
    class_weights: str | None = None,
    out: str | Path | None = None,
    budget: float | str | None = None,
    spent: float = 0.0,
    progress: Progress | None = None,
) -> Comparison:
    """Train every candidate with every seed on one split, and save what came of it.

    The split is fixed by the images' contents and the same for all. A seed decides which training images a
    limited number is (the fewer are always among the more), the order in which images are seen, and the first
    weights of what starts from random ones. Candidates with nothing random in them are trained once.

    Args:
        source: what `fit` takes.
        candidates: see `grid`.
        seeds: trainings of each candidate, from seed 0 up.
        runtime: "auto", "openvino" or "torch".
        precision: "auto", "bf16" or "f32".
        validation: share of the images that the candidates are compared on, where the data does not say.
        test: share that is read once, for the candidate that was chosen.
        batch_size: images per training step.
        learning_rate: None for the defaults of `fit`.
        class_weights: "balanced" or None.
        out: the comparison's folder; None for ``comparisons/ID`` in the working directory.
        budget: seconds, or "30s", "2m", of the whole comparison: seeds and then candidates are left out to
            keep it, which is a note of the comparison.
        spent: seconds that the caller's process ran before this call, where they count.
        progress: called with (phase, done, total).

    Raises:
        UserError: the input or an option cannot work.
    """
    started = time.perf_counter() - spent
    if not candidates:
        raise OptionError("nothing to compare: no candidate")
    if seeds < 1:
        raise OptionError(f"seeds {seeds}: expected 1 or more")
    limit = parse_budget(budget)
    dataset = read_dataset(source)
    settings = Settings(
        dataset.name,
        select(runtime, precision=precision),
        seeds,
        validation,
        test,
        batch_size,
        learning_rate,
        class_weights,
    )
    groups = _groups(candidates)
    networks = {
        candidate: network for group in groups for network in [load_group(group)] for candidate in group
    }
    schedule = _schedule(dataset, groups, networks=networks, settings=settings, budget=limit, started=started)
    predicted = schedule.predicted(spent=time.perf_counter() - started)
    deadline = Deadline(schedule, limit, started - ending(spent))
    passes, results = _train_all(dataset, networks, settings=settings, deadline=deadline, progress=progress)
    comparison = _comparison(dataset, passes, results, out=out, started=started)
    sentence = deadline.sentence()
    comparison = replace(
        comparison,
        predicted_seconds=predicted.to_dict(),
        notes=(*((sentence,) if sentence else ()), *comparison.notes),
    )
    comparison = _chosen(comparison, results, source=source)
    comparison = replace(comparison, seconds=seconds_since(started))
    if comparison.path is not None:
        save_comparison(comparison, path=comparison.path)
    return comparison


def _schedule(
    dataset: Dataset,
    groups: Groups,
    *,
    networks: Mapping[Candidate, Backbone],
    settings: Settings,
    budget: float | None,
    started: float,
) -> Schedule:
    """What will be trained, all of it where there is no budget."""
    foreseen = forecast(
        dataset,
        groups,
        networks=networks,
        configure=lambda candidate: settings.config(candidate, seed=0),
        runtime=settings.runtime,
        rates=RateStore().load(),
    )
    if budget is None:
        return Schedule(groups, settings.seeds, foreseen)
    spent = time.perf_counter() - started
    return shrink(groups, foreseen, seeds=settings.seeds, budget=budget, spent=spent)


def _train_all(
    dataset: Dataset,
    networks: Mapping[Candidate, Backbone],
    *,
    settings: Settings,
    deadline: Deadline,
    progress: Progress | None,
) -> "tuple[list[Pass], list[_Result]]":
    """Every group's pass and trainings, as far as the time goes; the first training always ends."""
    groups, seeds = deadline.schedule.groups, deadline.schedule.seeds
    total = sum(seeds if each.random else 1 for group in groups for each in group)
    passes: list[Pass] = []
    results: list[_Result] = []
    for group in groups:
        if results and not deadline.allows(group):
            deadline.skip(f"without {', '.join(candidate.name for candidate in group)}")
            continue
        watch = Watch(deadline.watched(progress) if results else progress)
        watch.begin("features")
        config = settings.config(group[0], seed=0)
        try:
            looked = look(
                dataset,
                group,
                config=config,
                runtime=settings.runtime,
                network=networks[group[0]],
                progress=watch,
            )
        except Over:
            deadline.skip(f"without {', '.join(candidate.name for candidate in group)}")
            continue
        passes.append(looked)
        rates = deadline.schedule.forecast.rates
        RateStore().add(learning.of_pass(group, looked, config=config, watch=watch, rates=rates))
        same_split([(p.network.name, p.prepared.fingerprint) for p in passes])
        count = _counter(progress, done=len(results), total=total)
        results += _train_group(
            group, passes[-1], settings=settings, deadline=deadline, first=not results, count=count
        )
    return passes, results


def _groups(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates that share a prefix pass, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Candidate]] = {}
    for candidate in dict.fromkeys(candidates):
        key = (candidate.backbone, candidate.size, candidate.architecture, candidate.views)
        groups.setdefault(key, []).append(candidate)
    return list(groups.values())


def _counter(progress: Progress | None, *, done: int, total: int) -> Callable[[int], None]:
    def count(more: int) -> None:
        if progress is not None:
            progress("trials", done + more, total)

    return count


@dataclass(frozen=True)
class _Result:
    """A trial, what it says of the test images (only the choice will show it), what its seconds teach."""

    trial: Trial
    test: metrics.Evaluation | None
    seen: tuple[Observation, ...] = ()


def _train_group(
    group: Sequence[Candidate],
    shared: Pass,
    *,
    settings: Settings,
    deadline: Deadline,
    first: bool,
    count: Callable[[int], None],
) -> list[_Result]:
    """Every candidate with every seed; what the time does not allow is left out and named."""
    if any(candidate.depth < candidate.stages for candidate in group):
        shared.network.module()  # starts PyTorch, which the first to be timed would pay for all
    results: list[_Result] = []
    try:
        for candidate in group:
            if candidate.whole in group and _is_all(shared.prepared, candidate):
                continue  # no class has that many: the same training as on all images
            for seed in range(deadline.schedule.seeds if candidate.random else 1):
                needed = first and not results
                found = None
                if needed or deadline.allows(group, candidate, seed=seed):
                    found = _train_in_time(
                        candidate, shared, settings=settings, seed=seed, deadline=deadline, in_time=not needed
                    )
                if found is None:
                    deadline.skip(f"without {candidate.name}" + (f" from seed {seed} on" if seed else ""))
                    break
                deadline.note(candidate, found.trial.seconds["train"] + found.trial.seconds["evaluate"])
                results.append(found)
                count(len(results))
    finally:
        RateStore().add(each for result in results for each in result.seen)
    return results


def _train_in_time(
    candidate: Candidate, shared: Pass, *, settings: Settings, seed: int, deadline: Deadline, in_time: bool
) -> "_Result | None":
    """One training, or None where the time was up before its last epoch."""
    stop = _stopper(deadline) if in_time else None
    rates = deadline.schedule.forecast.rates
    try:
        return _train_one(candidate, shared, settings=settings, seed=seed, stop=stop, rates=rates)
    except Over:
        return None


def _is_all(prepared: Prepared, candidate: Candidate) -> bool:
    """Whether a limited number of images turns out to be all of them."""
    if candidate.images is None:
        return False
    limited = limit_images(prepared, per_class=candidate.images, seed=0)
    return len(limited.images("train")) == len(prepared.images("train"))


def _train_one(
    candidate: Candidate, shared: Pass, *, settings: Settings, seed: int, stop: Stop | None, rates: Rates
) -> _Result:
    config = settings.config(candidate, seed=seed)
    prepared = limit_images(shared.at(candidate), per_class=candidate.images, seed=seed)
    network = _network(candidate, shared, seed=seed)
    watch = Watch()
    watch.begin("epochs")
    begun = time.perf_counter()
    trained = train(prepared, network, config=config, taps=candidate.taps, progress=watch, stop=stop)
    seconds = {"features": shared.cold_seconds(candidate), "train": seconds_since(begun)}
    begun = time.perf_counter()
    evaluations = dict(_evaluations(prepared, trained))
    found, predicted, evaluate_seconds = evaluations["validation"]
    trial = Trial(
        candidate=candidate,
        seed=seed,
        images=len(prepared.images("train")),
        predicted=predicted,
        accuracy=found.accuracy,
        macro_f1=found.macro_f1,
        log_loss=found.log_loss,
        calibration_error=found.calibration_error,
        seconds=seconds | {"evaluate": round(evaluate_seconds, 3)},
        history=tuple(dict(entry) for entry in trained.history),
    )
    seen = learning.of_training(
        candidate,
        prepared,
        config=config,
        train_seconds=seconds["train"],
        evaluate_seconds=sum(each[2] for each in evaluations.values()),
        watch=watch,
        rates=rates,
    )
    return _Result(trial, evaluations["test"][0] if "test" in evaluations else None, tuple(seen))


def _stopper(deadline: Deadline) -> Stop | None:
    """What the training loops ask after each epoch: it ends them by raising `Over`, when the time is up."""
    if deadline.budget is None:
        return None

    def stop(done: int, total: int) -> bool:
        if done < total:
            deadline.check()
        return False

    return stop


def _evaluations(
    prepared: Prepared, trained: Any
) -> Iterator[tuple[str, tuple[metrics.Evaluation, tuple[int, ...], float]]]:
    for split in ("validation", "test"):
        images = prepared.images(split)
        if len(images):
            begun = time.perf_counter()
            probabilities = predict_images(prepared, trained, images=images)
            found = metrics.evaluate(probabilities, prepared.labels(images), classes=prepared.dataset.classes)
            predicted = tuple(int(label) for label in probabilities.argmax(axis=1))
            yield split, (found, predicted, time.perf_counter() - begun)


def _network(candidate: Candidate, shared: Pass, *, seed: int) -> Backbone:
    """The network to thaw: from scratch each seed has weights of its own; the pixels are still shared."""
    if candidate.pretrained or (seed == 0 and not shared.network.pretrained):
        return shared.network
    return load_backbone(
        candidate.backbone,
        size=candidate.size,
        architecture=candidate.architecture,
        pretrained=False,
        seed=seed,
    )


def _comparison(
    dataset: Dataset,
    passes: Sequence[Pass],
    results: Sequence[_Result],
    *,
    out: str | Path | None,
    started: float,
) -> Comparison:
    prepared = passes[0].prepared
    comparison_id = new_id("comparison")
    path = Path(out) if out else Path("comparisons") / comparison_id
    sides = {split: len(prepared.images(split)) for split in ("train", "validation", "test")}
    labels = prepared.labels(prepared.images("validation"))
    return Comparison(
        id=comparison_id,
        path=path.absolute(),
        created=timestamp(),
        data=dataset.name,
        classes=dataset.classes,
        images={**sides, "skipped": len(prepared.skipped)},
        split=prepared.fingerprint,
        labels=tuple(int(label) for label in labels),
        trials=tuple(result.trial for result in results),
        passes=tuple(p.to_dict() for p in passes),
        seconds=seconds_since(started),
        notes=tuple(prepared.report.headline()),
        versions={
            "headstart": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "openvino", "pillow")},
        },
    )


def _chosen(comparison: Comparison, results: Sequence[_Result], *, source: Any) -> Comparison:
    """With its choice, and the test images read for that candidate alone."""
    if all(candidate.images is not None for candidate in comparison.candidates):
        return comparison
    choice = choose(comparison, source=str(source) if isinstance(source, (str, Path)) else None)
    read = next((r.test for r in results if r.trial.candidate == choice.candidate and r.test), None)
    if read is not None:
        test = {"images": read.images, "accuracy": read.accuracy, "interval": list(read.interval)}
        choice = replace(choice, test=test)
    return replace(comparison, choice=choice)
