"""Experiments on finished models: accuracies over several draws of the images, seconds taken in turns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median

import torch

from headstart.backbones.building import Recipe, build
from headstart.data.dataset import Dataset
from headstart.errors import BackboneError
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import SECONDS, Seconds, Stopwatch, Work
from headstart.lesson.experiments.passes import Look, accuracy_of, look, total_per_class
from headstart.lesson.experiments.training import (
    Finished,
    first_stages,
    fit_stages,
    pixels_of,
    random_twin,
    scratch,
    train_ridge,
)
from headstart.runs import FitConfig
from headstart.training import predict_images, train
from headstart.training.finetune import FineTuneConfig
from headstart.web.plots import Plot, Series, Table, Value

SHALLOW_STAGES = 5
"""Of the shallower network, from the input."""

_FINE_TUNED = 2
"""Last stages that a fine-tuned model trains: where fine-tuning pays most for its time."""

_FEW = 8
"""Images on which the very large network itself is timed."""

_ITSELF_SECONDS = 20.0
"""What that may take; where less is left it is not tried."""


@dataclass(frozen=True)
class Trained:
    """One model of one draw of the images.

    Attributes:
        accuracy: On the test images, percent.
        validation_accuracy: On the validation images, percent.
        seconds: From the images to the end of its training.
        weights: How many it has, without the head's.
        images: How many it was trained on.
    """

    accuracy: float
    validation_accuracy: float
    seconds: Seconds
    weights: int
    images: int


@dataclass(frozen=True)
class Model:
    """A way to train, and what came of it in each draw of the images."""

    name: str
    draws: tuple[Trained, ...]

    @property
    def accuracies(self) -> tuple[float, ...]:
        """On the test images of each draw, percent."""
        return tuple(each.accuracy for each in self.draws)

    @property
    def accuracy(self) -> float:
        """The mean over the draws."""
        return round(fmean(self.accuracies), 2)

    @property
    def validation_accuracy(self) -> float:
        """The mean over the draws."""
        return round(fmean(each.validation_accuracy for each in self.draws), 2)

    @property
    def seconds(self) -> Seconds:
        """The medians over the draws."""
        processor = median(each.seconds.processor for each in self.draws)
        return Seconds(round(processor, 3), round(median(each.seconds.clock for each in self.draws), 3))

    def is_better_than(self, other: Model) -> bool:
        """Whether it is more accurate in every draw that both took part in."""
        return all(mine > theirs for mine, theirs in zip(self.accuracies, other.accuracies, strict=False))

    def is_quicker_than(self, other: Model) -> bool:
        """Whether it took less of the processor in every draw that both took part in."""
        pairs = zip(self.draws, other.draws, strict=False)
        return all(mine.seconds.processor < theirs.seconds.processor for mine, theirs in pairs)


Way = Callable[[Dataset, int], Trained]
"""Trains a model on a draw's images, with its seed."""


def _in_turns(work: Work, ways: Mapping[str, Way], *, once: Collection[str] = ()) -> list[Model]:
    """Every way in the first draw of the images, then every way in the second, and so on.

    Taking turns, all meet the same machine. The first draw is preceded by nothing: networks are compiled, and
    a step is made, before a clock starts.

    Args:
        work: the experiment.
        ways: by name.
        once: names of those that only take part in the first draw, because they are slow.
    """
    found: dict[str, list[Trained]] = {name: [] for name in ways}
    draws = work.number("draws")
    total = len(ways) * draws - len(once) * (draws - 1)
    for draw in range(draws):
        dataset = work.images(per_class=total_per_class(work.number("images_per_class")), draw=draw)
        for name, way in ways.items():
            if draw == 0 or name not in once:
                found[name].append(way(dataset, work.seed_of(draw)))
                work.tell("models", sum(map(len, found.values())), total)
    return [Model(name, tuple(some)) for name, some in found.items()]


def _seen(
    work: Work,
    dataset: Dataset,
    chosen: networks.Chosen,
    *,
    seed: int,
    depths: Sequence[int] = (),
    layers: bool = False,
    views: int = 1,
) -> Look:
    """A network's look at a draw's images, with as many to train on as the parameters say."""
    found = look(work, dataset, chosen.network, depths=depths, layers=layers, views=views)
    return found.limited(work.number("images_per_class"), seed=seed)


def frozen_model(found: Look, *, layers: str = "last", seed: int) -> Trained:
    """The look's network, frozen whole, with a ridge head on its last vector or on more (`fit --layers`)."""
    watch = Stopwatch()
    config = FitConfig(depth=found.stages, stages=found.stages, layers=layers, seed=seed).settled()
    trained = train(found.prepared, config=config)
    seconds = found.seconds + watch.seconds()
    test, validation = (
        accuracy_of(
            predict_images(found.prepared, trained, images=found.prepared.images(split)), found.labels(split)
        )
        for split in ("test", "validation")
    )
    weights = sum(stage.parameters for stage in found.network.stages)
    return Trained(test, validation, seconds, weights, found.count("train"))


def _from_run(run: Finished, found: Look, trainable: torch.nn.Module, *, before: Seconds) -> Trained:
    weights = sum(weight.numel() for weight in trainable.parameters())
    return Trained(run.accuracy, run.validation_accuracy, before + run.seconds, weights, found.count("train"))


def model_choice(work: Work) -> Outcome:
    """Four ways to start, side by side on the same few images."""
    per_class, size, epochs = (work.number(name) for name in ("images_per_class", "size", "epochs"))
    small = networks.load(work.text("backbone"), size=size)
    large = networks.load(work.text("large"), size=size)
    work.notes += [chosen.note for chosen in (small, large) if chosen.note]

    def pretrained(chosen: networks.Chosen) -> Way:
        return lambda dataset, seed: frozen_model(
            _seen(work, dataset, chosen, seed=seed, layers=True), layers="auto", seed=seed
        )

    small_name, large_name = f"small, pre-trained ({small.label})", f"large, pre-trained ({large.label})"
    whole_name, shallow_name = "small, from scratch", "shallower, from scratch"
    models = _in_turns(
        work,
        {
            small_name: pretrained(small),
            large_name: pretrained(large),
            whole_name: lambda dataset, seed: _from_scratch(work, dataset, epochs=epochs, seed=seed),
            shallow_name: lambda dataset, seed: _from_scratch(
                work, dataset, epochs=epochs, seed=seed, stages=SHALLOW_STAGES
            ),
        },
    )
    images = len(work.images(per_class=total_per_class(per_class)).samples)
    work.notes += [
        f"the shallower network is the first {SHALLOW_STAGES} stages of the small one; from scratch both "
        f"train {epochs} epochs in steps of {scratch(1, seed=0).batch_size} images, and longer might bring "
        "them further",
        f"the pre-trained ones are frozen, with the head that a fit gives them, which may read several "
        f"stages; their seconds are for reading and passing over all {images} images, those held out too, "
        "and for the head",
        _draws_note(work),
    ]
    rows = [(*_row(each), each.draws[0].weights) for each in models]
    if large.note and work.text("itself") == "yes" and work.left() > _ITSELF_SECONDS:
        rows += _itself(work.text("large"), size=networks.moderate_size(size), images=images)
    fields: dict[str, Value] = {
        "conclusion": _conclusion_of_choice(*models),
        "draws": work.number("draws"),
        "images": models[0].draws[0].images,
        "large_name": large.label,
        "seconds_small": models[0].seconds.processor,
        "seconds_large": models[1].seconds.processor,
        "accuracy_small": models[0].accuracy,
        "accuracy_large": models[1].accuracy,
        "accuracy_scratch": models[2].accuracy,
        "accuracy_shallow": models[3].accuracy,
    }
    table = Table(("start", *_MEASURED, "weights"), tuple(rows))
    return Outcome(fields, table, (_dots("Four ways to start", models),))


def _conclusion_of_choice(small: Model, large: Model, whole: Model, shallow: Model) -> str:
    """What the four ways came to, in whichever direction."""
    said = [
        _compared(small, whole, names=("the small pre-trained network", "the same network from scratch")),
        _compared(small, shallow, names=("it", "a shallower network from scratch")),
        _compared(large, small, names=("the large one", "the small one")),
    ]
    quicker = "in every draw" if small.is_quicker_than(large) else "not in every draw"
    return "; ".join(said) + f"; the small one was done sooner {quicker}"


def _compared(first: Model, second: Model, *, names: tuple[str, str]) -> str:
    """Which of two was more accurate, where every draw says the same."""
    if first.is_better_than(second):
        return f"{names[0]} was more accurate than {names[1]} in every draw"
    if second.is_better_than(first):
        return f"{names[1]} was more accurate than {names[0]} in every draw"
    return f"between {names[0]} and {names[1]} the draws do not decide"


_MEASURED = (
    "test accuracy, percent",
    "lowest draw",
    "highest draw",
    "validation accuracy, percent",
    *SECONDS,
)


def _row(model: Model) -> tuple[Value, ...]:
    """A model's cells in the columns `_MEASURED`, behind its name."""
    low, high = min(model.accuracies), max(model.accuracies)
    return model.name, model.accuracy, low, high, model.validation_accuracy, *model.seconds.row


def _dots(title: str, models: list[Model], *more: Series) -> Plot:
    dots = (Series(each.name, ((each.seconds.processor, each.accuracy),)) for each in models)
    return Plot("dots", title, "processor seconds", "test accuracy, percent", (*dots, *more))


def _draws_note(work: Work) -> str:
    return (
        f"accuracies are means over {work.number('draws')} draws of the images, seconds are medians, and all "
        "take turns; the table has the lowest and the highest accuracy, and one model is called more "
        "accurate than another only where every draw says so"
    )


def _itself(name: str, *, size: int, images: int) -> Iterator[tuple[Value, ...]]:
    """What a network whose weights are not here would take for one pass: time does not depend on weights.

    Args:
        name: timm's.
        size: pixels a side that it would see if its weights were here.
        images: as many as the other networks passed over, those held out too.
    """
    try:
        built = build(Recipe(name, {}, weights=None), size=size, name=name)
    except BackboneError:  # a file, or a name that nobody knows
        return
    module = built.split(0)[1].eval()
    few = torch.rand(_FEW, 3, size, size)
    with torch.inference_mode():
        module(few)
        watch = Stopwatch()
        module(few)
        taken = watch.seconds()
    label = (
        f"{name} itself at {size} px, with random weights: one pass over all {images} images, estimated "
        f"from {_FEW}"
    )
    seconds = Seconds(*(each / _FEW * images for each in (taken.processor, taken.clock)))
    weights = sum(weight.numel() for weight in module.parameters())
    yield label, None, None, None, None, *seconds.row, weights


def accuracy_against_time(work: Work) -> Outcome:
    """Finished models, the front that none of them beats, one that is beaten, and the learner's choice."""
    size, epochs = work.number("size"), work.number("reference_epochs")
    small, large = (networks.load(name, size=size) for name in (networks.BUILTIN, networks.BUILTIN_LARGE))
    smallest = networks.load(networks.BUILTIN, size=networks.SMALLEST)
    largest = networks.load(networks.BUILTIN_LARGE, size=2 * size)

    def last(chosen: networks.Chosen) -> Way:
        return lambda dataset, seed: frozen_model(_seen(work, dataset, chosen, seed=seed), seed=seed)

    def all_stages(chosen: networks.Chosen) -> Way:
        return lambda dataset, seed: frozen_model(
            _seen(work, dataset, chosen, seed=seed, layers=True), layers="all", seed=seed
        )

    read = ", all frozen, every stage read"
    work.notes.append(
        "builtin is the small network that comes with Headstart, px how many pixels a side it sees; with "
        "every stage read the head reads what all stages say, else the last alone"
    )
    cut = len(small.network.stages) - _FINE_TUNED
    fine_tuned = f"{small.label}, {cut} of {len(small.network.stages)} frozen"
    scratch_name = f"{small.label}, from scratch"
    own_name, own, own_is_slow = _own(work)
    frozen_ways: dict[str, Way] = {
        f"{smallest.label}, all frozen": last(smallest),
        f"{small.label}, all frozen{', last stage read' if size == networks.SMALLEST else ''}": last(small),
        f"{small.label}{read}": all_stages(small),
        f"{large.label}{read}": all_stages(large),
        f"{largest.label}, all frozen": last(largest),
    }
    found = _in_turns(
        work,
        frozen_ways
        | {
            fine_tuned: lambda dataset, seed: _tuned(
                work, dataset, small, epochs=epochs, depth=cut, seed=seed
            ),
            scratch_name: lambda dataset, seed: _from_scratch(work, dataset, epochs=epochs, seed=seed),
            own_name: own,
        },
        once=(fine_tuned, scratch_name, *([own_name] if own_is_slow else [])),
    )
    *models, chosen = found
    front = _front(models)
    beaten, winner = _beaten(models[: len(frozen_ways)])
    work.notes += [
        _draws_note(work),
        "whatever trains stages takes part in the first draw alone, as it is slow",
        f"your choice was right on {chosen.validation_accuracy:g} percent of the validation images: compare "
        "your choices by this number, as choosing by test score makes it too optimistic",
    ]
    return _outcome_of_front(found, front, beaten=beaten, winner=winner, draws=work.number("draws"))


def _outcome_of_front(
    found: list[Model], front: list[Model], *, beaten: Model | None, winner: Model | None, draws: int
) -> Outcome:
    """What is quoted, tabled and drawn; the last model is the learner's choice."""
    *models, chosen = found
    fields: dict[str, Value] = {
        "conclusion": _conclusion_of_front(front, beaten, winner),
        "draws": draws,
        "fast_name": front[0].name,
        "slow_name": front[-1].name,
        "fast_accuracy": front[0].accuracy,
        "slow_accuracy": front[-1].accuracy,
        "fast_seconds": front[0].seconds.processor,
        "slow_seconds": front[-1].seconds.processor,
        "scratch_seconds": models[-1].seconds.processor,
        "accuracy": chosen.accuracy,
        "validation_accuracy": chosen.validation_accuracy,
        "seconds": chosen.seconds.processor,
        "beaten_name": beaten.name if beaten else None,
        "beaten_by": winner.name if winner else None,
    }
    on_front = [*("yes" if model in front else "no" for model in models), "not asked"]
    table = Table(
        ("model", *_MEASURED, "on the front"),
        tuple((*_row(model), said) for model, said in zip(found, on_front, strict=True)),
    )
    line = Series("front", tuple((model.seconds.processor, model.accuracy) for model in front))
    return Outcome(
        fields, table, (_dots("Finished models, and the front that none of them beats", found, line),)
    )


def _front(models: list[Model]) -> list[Model]:
    """Those that no other beats, the quickest first.

    A model that is slower than the one before must be more accurate in every draw, not by a hair in one.
    """
    front: list[Model] = []
    for model in sorted(models, key=lambda model: (model.seconds.processor, -model.accuracy)):
        if not front or model.is_better_than(front[-1]):
            front.append(model)
    return front


def _beaten(models: list[Model]) -> tuple[Model | None, Model | None]:
    """The slowest model that another beats on both counts in every draw, and the most accurate of these."""
    for model in sorted(models, key=lambda model: -model.seconds.processor):
        better = [other for other in models if other.is_quicker_than(model) and other.is_better_than(model)]
        if better:
            return model, max(better, key=lambda other: other.accuracy)
    return None, None


def _conclusion_of_front(front: list[Model], beaten: Model | None, winner: Model | None) -> str:
    fast, slow = front[0], front[-1]
    said = f"{fast.name} was the quickest, with {fast.accuracy:.3g} percent"
    if fast is slow:
        said = f"there was no trade-off on these images: {said}, and no slower model was better in every draw"
    else:
        said += f"; {slow.name} took longer and was right on {slow.accuracy:.3g} percent"
    if beaten and winner:
        return f"{said}; nobody needs {beaten.name}, which {winner.name} beats on both counts in every draw"
    return f"{said}; among the frozen models none was beaten on both counts in every draw"


def _tuned(
    work: Work,
    dataset: Dataset,
    chosen: networks.Chosen,
    *,
    epochs: int,
    depth: int,
    seed: int,
    views: int = 1,
) -> Trained:
    """The stages behind the cut trained, from the closed-form head on."""
    found = _seen(work, dataset, chosen, seed=seed, depths=(depth,), views=views)
    watch = Stopwatch()
    head = train_ridge(found)
    before = found.seconds + watch.seconds()
    trainable = chosen.network.module().split(depth)[1]
    config = FineTuneConfig(epochs=epochs, patience=None, seed=seed)
    progress = partial(work.tell, "epochs")
    run = fit_stages(found, trainable, config=config, head=head, progress=progress)
    return _from_run(run, found, trainable, before=before)


def _from_scratch(
    work: Work, dataset: Dataset, *, epochs: int, seed: int, stages: int | None = None
) -> Trained:
    """The small network from random weights, or its first stages."""
    found = pixels_of(work, dataset, seed=seed)
    trainable = random_twin(found.network, seed=seed)
    if stages is not None:
        trainable = first_stages(trainable, stages)
    progress = partial(work.tell, "epochs")
    run = fit_stages(found, trainable, config=scratch(epochs, seed=seed), progress=progress)
    return _from_run(run, found, trainable, before=found.seconds)


def _own(work: Work) -> tuple[str, Way, bool]:
    """The configuration that the learner chose: what to call it, what trains it, whether it trains stages."""
    chosen = networks.load(work.text("backbone"), size=work.number("size"))
    if chosen.note:
        work.notes.append(chosen.note)
    stages, views, epochs = len(chosen.network.stages), work.number("views"), work.number("epochs")
    depth = {"all": stages, "half": stages // 2, "none": 0}[work.text("depth")]
    said = f"{views} {'view' if views == 1 else 'views'}"
    if depth < stages:
        name = f"your choice: {chosen.label}, {depth} of {stages} frozen, {said}"
        tuned = partial(_tuned, work, chosen=chosen, epochs=epochs, depth=depth, views=views)
        return name, lambda dataset, seed: tuned(dataset=dataset, seed=seed), True
    work.notes.append(
        "with all frozen the head is computed at once, so the epochs of your choice were not used"
    )

    def all_frozen(dataset: Dataset, seed: int) -> Trained:
        found = _seen(work, dataset, chosen, seed=seed, layers=True, views=views)
        return frozen_model(found, layers="auto", seed=seed)

    return f"your choice: {chosen.label}, all frozen, {said}", all_frozen, False
