"""Experiments on where a training starts: which weights, how many images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import fmean

from headstart.backbones import load_backbone
from headstart.errors import OptionError
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import SECONDS, Seconds, Work
from headstart.lesson.experiments.models import SHALLOW_STAGES, Model, Trained, frozen_model
from headstart.lesson.experiments.passes import look, spread_of, total_per_class
from headstart.lesson.experiments.training import (
    BATCH,
    Finished,
    first_stages,
    fit_stages,
    random_twin,
    scratch,
)
from headstart.web.plots import Plot, Series, Table, Value

RATE = 0.05
"""Of both runs of a fair pair: between the training loop's 0.03 for fine-tuning and 0.1 from scratch."""

RANDOM = "random weights"

_LEARNED = 2
"""A run that was right less than so many times as often as guessing is has hardly learned anything."""


def pretrained_vs_scratch(work: Work) -> Outcome:
    """One network three times: frozen with a new head, trained whole, and trained whole from random numbers.

    The two trainings differ in their first weights alone and make equally many steps. None of it is cut, so
    what is quoted was measured whole.
    """
    epochs, per_class = work.number("epochs"), work.number("images_per_class")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=total_per_class(per_class))
    head_alone = frozen_model(
        look(work, dataset, network, layers=True).limited(per_class), layers="auto", seed=work.seed
    )
    found = look(work, dataset, network, depths=(0,), pooled=False).limited(per_class)
    before = found.seconds
    first_is_random = work.text("start") == RANDOM
    start = random_twin(network, seed=work.seed + 1) if first_is_random else network.module().split(0)[1]
    # Runs that differ in their first weights alone: every stage trains, one rate, norms too.
    config = replace(scratch(epochs, seed=work.seed), learning_rate=RATE)
    first = fit_stages(found, start, config=config, progress=partial(work.tell, "first run"))
    twin = random_twin(network, seed=work.seed)
    second = fit_stages(found, twin, config=config, progress=partial(work.tell, "from scratch"))
    target = max(reached for _, reached in second.curve)
    passed = first.seconds_to(target)
    seconds_first = None if passed is None else round(before.processor + passed, 3)
    seconds_scratch = round(before.processor + second.curve[-1][0], 3)
    name = "from other random weights" if first_is_random else "from pre-trained weights"
    low, high = spread_of(head_alone.accuracy, found.count("test"))
    work.notes += [
        f"both trainings make {first.steps} steps of {config.batch_size} images; the target is the best that "
        f"the one from scratch reached on {found.count('validation')} validation images in all of its epochs",
        f"on {found.count('test')} test images {head_alone.accuracy:g} percent may be anything from {low:g} "
        f"to {high:g} with 95 percent confidence",
    ]
    table = Table(
        ("run", "steps", *SECONDS, "validation accuracy, percent", "test accuracy, percent"),
        (
            ("frozen, with a new head", 0, *_results(head_alone, Seconds())),
            (f"every layer trained, {name}", first.steps, *_results(first, before)),
            ("every layer trained, from scratch", second.steps, *_results(second, before)),
        ),
    )
    plot = _course(head_alone, {name: first, "from scratch": second}, before=before)
    fields: dict[str, Value] = {
        "conclusion": _conclusion(first, second, target=target, seconds=(seconds_first, seconds_scratch)),
        "epochs": epochs,
        "seconds_frozen": round(head_alone.seconds.processor, 3),
        "accuracy_frozen": head_alone.accuracy,
        "target_accuracy": target,
        "seconds_pretrained": seconds_first,
        "seconds_scratch": seconds_scratch,
        "ratio": round(seconds_scratch / seconds_first, 2) if seconds_first else None,
        "accuracy_pretrained": first.accuracy,
        "accuracy_scratch": second.accuracy,
        "images": found.count("train"),
        "classes": found.classes,
    }
    return Outcome(fields, table, (plot,))


def _results(run: Trained | Finished, before: Seconds) -> tuple[Value, ...]:
    return *(before + run.seconds).row, run.validation_accuracy, run.accuracy


def _conclusion(
    first: Finished, second: Finished, *, target: float, seconds: tuple[float | None, float]
) -> str:
    passed, scratch_took = seconds
    if passed is None:
        return f"the first run never reached the {target:.3g} percent that the one from scratch came to"
    said = (
        f"what training from scratch came to in {scratch_took:.3g} s, {target:.3g} percent, the first run "
        f"passed after {passed:.3g} s"
    )
    if first.accuracy > second.accuracy:
        return (
            f"{said}; after equally many steps it was right on {first.accuracy:.3g} percent of the test "
            f"images, the other on {second.accuracy:.3g}"
        )
    return f"{said}, and yet it was no better on the test images after equally many steps"


def _course(head_alone: Trained, runs: dict[str, Finished], *, before: Seconds) -> Plot:
    """Validation accuracy of each run against seconds, the frozen head as a level line."""
    end = round(before.processor + max(run.curve[-1][0] for run in runs.values()), 3)
    level = tuple((at, head_alone.validation_accuracy) for at in (head_alone.seconds.row[0], end))
    return Plot(
        "line",
        "Validation accuracy as training goes on",
        "processor seconds",
        "validation accuracy, percent",
        (
            Series("frozen, with a new head", level),
            *(Series(name, _curve(run, before=before)) for name, run in runs.items()),
        ),
    )


def _curve(run: Finished, *, before: Seconds) -> tuple[tuple[float, float], ...]:
    return tuple((round(before.processor + seconds, 3), reached) for seconds, reached in run.curve)


def images_needed(work: Work) -> Outcome:
    """Test accuracy against training images of each class, frozen pre-trained and from scratch."""
    few, many, steps = (work.number(name) for name in ("images_per_class", "most_images_per_class", "steps"))
    if few > many:
        raise OptionError(f"images_per_class {few}: expected at most most_images_per_class, which is {many}")
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    counts, draws = sorted({few, round((few * many) ** 0.5), many}), work.number("draws")
    frozen_at: dict[int, list[Trained]] = {count: [] for count in counts}
    trained_at: dict[int, list[Trained]] = {count: [] for count in counts}
    for draw in range(draws):
        seed = work.seed_of(draw)
        dataset = work.images(per_class=total_per_class(many), draw=draw)
        found = look(work, dataset, network, depths=(0,), layers=True)
        twin = first_stages(random_twin(network, seed=seed), SHALLOW_STAGES)
        for count in counts:
            part = found.limited(count, seed=seed)
            frozen_at[count].append(frozen_model(part.at(part.stages), layers="auto", seed=seed))
            run = fit_stages(part.at(0), twin, config=scratch(1, seed=seed), steps=steps, validate=False)
            trained_at[count].append(
                Trained(run.accuracy, run.validation_accuracy, run.seconds, 0, part.count("train"))
            )
            work.tell("numbers of images", len(counts) * draw + counts.index(count) + 1, len(counts) * draws)
    pretrained = {count: Model(f"{count}", tuple(some)) for count, some in frozen_at.items()}
    shallow = {count: Model(f"{count}", tuple(some)) for count, some in trained_at.items()}
    if shallow[many].accuracy < _LEARNED * 100 / found.classes:
        work.notes.append(
            "from scratch even the most images gave little more than guessing would: so short a training "
            "does not tell what more of them are worth"
        )
    work.notes += [
        f"from scratch the first {SHALLOW_STAGES} stages of the network train, which so few images can "
        f"teach more than all of them; every number of images has {steps} steps of {BATCH} images, so that "
        "fewer images do not also mean less training",
        f"means over {draws} draws of the images, with the lowest and the highest in the table; each is "
        f"judged on about {found.count('test')} test images",
    ]
    table, plot = _counts_table(pretrained, shallow, steps=steps)
    fields: dict[str, Value] = {
        "conclusion": _conclusion_of_counts(pretrained, shallow, few=few, many=many),
        "draws": draws,
        "steps": steps,
        "few": few,
        "many": many,
        "accuracy_pretrained_few": pretrained[few].accuracy,
        "accuracy_pretrained_many": pretrained[many].accuracy,
        "accuracy_scratch_few": shallow[few].accuracy,
        "accuracy_scratch_many": shallow[many].accuracy,
    }
    return Outcome(fields, table, (plot,))


def _counts_table(
    pretrained: dict[int, Model], shallow: dict[int, Model], *, steps: int
) -> tuple[Table, Plot]:
    """Both ways to train at each number of images."""
    table = Table(
        (
            "training images of each class, at most",
            "test accuracy pre-trained, percent",
            "lowest draw",
            "highest draw",
            "test accuracy from scratch, percent",
            "lowest draw",
            "highest draw",
            "steps from scratch",
            "processor seconds of training from scratch",
        ),
        tuple(
            (
                count,
                *_spread(pretrained[count]),
                *_spread(shallow[count]),
                steps,
                shallow[count].seconds.processor,
            )
            for count in pretrained
        ),
    )
    plot = table.plot(
        "line",
        "Test accuracy against the number of images",
        x="training images of each class",
        y="test accuracy, percent",
        series={"pre-trained, all frozen": 1, "from scratch": 4},
    )
    return table, plot


def _spread(model: Model) -> tuple[float, float, float]:
    return model.accuracy, min(model.accuracies), max(model.accuracies)


def _conclusion_of_counts(
    pretrained: dict[int, Model], shallow: dict[int, Model], *, few: int, many: int
) -> str:
    advantages = {
        count: [
            mine - theirs
            for mine, theirs in zip(pretrained[count].accuracies, shallow[count].accuracies, strict=True)
        ]
        for count in (few, many)
    }
    at_few, at_many = (fmean(advantages[count]) for count in (few, many))
    said = f"the advantage was {at_few:.3g} points with {few} images per class and {at_many:.3g} with {many}"
    if all(one > other for one, other in zip(advantages[few], advantages[many], strict=True)):
        return f"{said}: the fewer images, the larger, in every draw"
    return f"{said}: whether fewer images make it larger, these draws do not decide"
