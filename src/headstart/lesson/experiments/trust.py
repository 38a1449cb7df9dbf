"""Experiments on whether an accuracy can be trusted: marks, copies, few test images, rare classes.

Each is a closed-form head on frozen features of the built-in network, so what differs is how it was measured.
They need no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.runtimes import select
from headstart.data.images import load_pixels
from headstart.errors import DatasetError, ImageError
from headstart.heads import LinearHead, fit_ridge, metrics
from headstart.lesson.engine.results import Outcome
from headstart.lesson.experiments import networks
from headstart.lesson.experiments.context import Work
from headstart.lesson.experiments.passes import accuracy_of
from headstart.web.plots import Plot, Series, Table, Value

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]
Indices = NDArray[np.int64]

_BATCH = 64
_FEWEST = 6
"""Images of each class below which a part of them is nothing to measure on."""

HELD = 0.4
"""Share of the images that is for testing; of `copies` for the new photographs."""

COVER = 5
"""A mark is one part in so many of the picture's side."""

MARKED, CLEAN, COVERED = "with the marks", "without any mark", "corner covered"
BY_FILE, BY_PHOTOGRAPH = "by file", "by photograph"

RARE = 9
"""Images of the others for each one of the rare class."""

CONTESTANTS, CHOICES = 10, 20
"""Classifiers of which the best is taken by a few test images, and how often that is done: once is luck."""


@dataclass(frozen=True)
class Seen:
    """Photographs as the network sees them.

    Attributes:
        network: the backbone.
        pixels: uint8 [N, S, S, 3].
        labels: [N].
        classes: their names.
    """

    network: Backbone
    pixels: Pixels
    labels: Indices
    classes: tuple[str, ...]

    def features(self, pixels: Pixels) -> Features:
        """What the frozen network says of pictures, float32 [n, D]."""
        layers = self.network.feature_layers()[-1:]
        depth = len(self.network.stages)
        frozen = select().compile(self.network, depth=depth, layers=layers, batch_size=_BATCH)
        batches = ((0, pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
        found = [outputs[layers[0].name] for _, outputs in frozen.stream(batches)]
        return np.concatenate(found, dtype=np.float32)

    def head(self, features: Features, labels: Indices) -> LinearHead:
        """The closed-form head."""
        return fit_ridge((features, labels), classes=len(self.classes)).head


def _see(work: Work, *, per_class: int) -> Seen:
    """The experiment's images, decoded; those that cannot be read are left out."""
    network = load_backbone(networks.BUILTIN, size=work.number("size"))
    dataset = work.images(per_class=per_class)
    pixels, labels = [], []
    for sample in work.each("images", dataset.samples):
        try:
            pixels.append(load_pixels(sample.source.read(), network.preprocess))
        except (ImageError, OSError):
            continue
        labels.append(sample.label)
    counts = np.bincount(labels, minlength=len(dataset.classes))
    if counts.min() < _FEWEST:
        name = dataset.classes[int(counts.argmin())]
        raise DatasetError(
            f"{dataset.name}: class {name} has {counts.min()} images; this experiment needs {_FEWEST} of each"
        )
    return Seen(network, np.stack(pixels), np.array(labels), dataset.classes)


def _parted(labels: Indices, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which are held out: so large a share of every class, at least one."""
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = random.permutation(np.flatnonzero(labels == label))
        held[of_class[: max(1, round(share * len(of_class)))]] = True
    return held


# A mark that gives the class away -------------------------------------------------------------------------


def leaked_mark(work: Work) -> Outcome:
    """A classifier trained on pictures with a mark of their class, tested with the mark and without it."""
    seen = _see(work, per_class=work.number("images_per_class"))
    random = np.random.default_rng(work.seed)
    test = _parted(seen.labels, HELD, random)
    marked = _marked(seen.pixels, seen.labels, classes=len(seen.classes))
    shown = {MARKED: marked, CLEAN: seen.pixels, COVERED: _covered(marked)}
    found = {name: seen.features(shown[name]) for name in work.each("pictures", list(shown))}
    trained = {name: seen.head(features[~test], seen.labels[~test]) for name, features in found.items()}

    def score(head: str, pictures: str) -> float:
        return accuracy_of(trained[head].logits(found[pictures][test]), seen.labels[test])

    own = COVERED if work.text("training") == COVERED else MARKED
    pairs = ((MARKED, MARKED), (MARKED, CLEAN), (CLEAN, CLEAN), (COVERED, COVERED))
    rows = tuple((*pair, score(*pair)) for pair in pairs)
    claimed, later, honest = (float(row[2]) for row in rows[:3])
    table = Table(("trained on pictures", "tested on pictures", "test accuracy, percent"), rows)
    work.notes.append(
        f"each class had a camera of its own, which left a small square of its own colour in the corner; the "
        f"same {int(test.sum())} test pictures every time; later ones come from another camera, without it"
    )
    short = {MARKED: "mark", CLEAN: "none", COVERED: "covered"}
    bars = tuple((f"{short[on]}, {short[by]}", right) for on, by, right in rows)
    plot = Plot(
        "bars",
        "Trained and tested on the same pictures, with a mark of their class, without, and covered",
        "mark in training, in the test",
        "test accuracy, percent",
        (Series("test accuracy", bars),),
    )
    fields: dict[str, Value] = {
        "conclusion": f"trained on marked pictures it was right on {claimed:.3g} percent of marked test "
        f"pictures and on {later:.3g} percent of the same pictures without the mark; trained without marks, "
        f"on {honest:.3g} percent" + ("" if later < claimed else ": here the mark was not needed"),
        "accuracy_marked": claimed,
        "accuracy_later": later,
        "accuracy_honest": honest,
        "accuracy": score(own, COVERED if own == COVERED else CLEAN),
    }
    return Outcome(fields, table, (plot,))


def _marked(pixels: Pixels, labels: Indices, *, classes: int) -> Pixels:
    """The pictures with a square in a corner whose colour is that of the class."""
    colours = np.random.default_rng(classes).permutation(256)[: 3 * classes].reshape(classes, 3)
    marked = pixels.copy()
    side = pixels.shape[1] // COVER
    marked[:, :side, :side] = colours[labels][:, None, None]
    return marked


def _covered(pixels: Pixels) -> Pixels:
    covered = pixels.copy()
    side = pixels.shape[1] // COVER
    covered[:, :side, :side] = 128
    return covered


# Copies on both sides -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tested:
    """What became of one way to split: percent right, and which pictures were, for an interval.

    `reported` is on the test pictures, `new` on new photographs, `random` on test pictures whose photographs
    had random labels.
    """

    reported: float
    new: float
    random: float
    margin: float


def copies(work: Work) -> Outcome:
    """Several pictures of each thing, split by file and by thing, with the labels and with random ones."""
    seen = _see(work, per_class=work.number("images_per_class"))
    number, share = work.number("copies"), work.number("test_percent") / 100
    random = np.random.default_rng(work.seed)
    later = _parted(seen.labels, HELD, random)
    photographs = np.flatnonzero(~later)
    pictures = np.concatenate([_again(seen.pixels[photographs], random) for _ in range(number)])
    of = np.tile(np.arange(len(photographs)), number)
    each = (_again(seen.pixels[later], random), pictures)
    new, features = (seen.features(pixels) for pixels in work.each("pictures", each))
    labels = seen.labels[photographs]
    sides = {
        BY_FILE: _parted(labels[of], share, random),
        BY_PHOTOGRAPH: _parted(labels, share, random)[of],
    }
    named = (labels, random.permutation(labels))
    found = {
        way: _tested(seen, features, of, test=test, named=named, new=(new, seen.labels[later]))
        for way, test in sides.items()
    }
    table = Table(
        ("split", "test accuracy, percent", "accuracy on new photographs, percent", "random labels, percent"),
        tuple((way, one.reported, one.new, one.random) for way, one in found.items()),
    )
    chance = round(100 / len(seen.classes), 1)
    work.notes.append(
        f"{len(photographs)} photographs, {number} pictures of each, which differ by a small shift and in "
        f"brightness; {int(later.sum())} further photographs are the new ones; with random labels there is "
        f"nothing to learn, so an honest test gives about {chance:g} percent"
    )
    plot = table.plot(
        "bars",
        "The same classifier, split by file and by photograph",
        x="split",
        y="right, percent",
        series={"test accuracy": 1, "new photographs": 2, "random labels": 3},
    )
    by_file, by_photograph, chosen = found[BY_FILE], found[BY_PHOTOGRAPH], found[work.text("split")]
    fields: dict[str, Value] = {
        "conclusion": f"split by file the test said {by_file.reported:.3g} percent, split by photograph "
        f"{by_photograph.reported:.3g}; on new photographs it was {by_file.new:.3g}. With random labels the "
        f"split by file still said {by_file.random:.3g} percent, where guessing gives {chance:g}",
        "accuracy_by_file": by_file.reported,
        "accuracy_by_photograph": by_photograph.reported,
        "accuracy_new": chosen.new,
        "random_by_file": by_file.random,
        "random_by_photograph": by_photograph.random,
        "chance": chance,
        "reported": chosen.reported,
        "gap": round(abs(chosen.reported - chosen.new), 2),
        "margin": chosen.margin,
    }
    return Outcome(fields, table, (plot,))


def _tested(
    seen: Seen,
    features: Features,
    of: Indices,
    *,
    test: NDArray[np.bool_],
    named: tuple[Indices, Indices],
    new: tuple[Features, Indices],
) -> _Tested:
    """Trains on what is not for testing, once with the labels and once with random ones, and tests.

    The margin is how far two such measurements may lie apart by chance: both 95 percent intervals together.
    Pictures of one photograph are right or wrong together, so they count by photograph.

    Args:
        seen: the images.
        features: of every picture [n, D].
        of: the photograph of each [n].
        test: which pictures are for testing [n].
        named: each photograph's label, and a random one.
        new: features and labels of the new photographs.
    """
    heads = [seen.head(features[~test], labels[of][~test]) for labels in named]
    right, random_right = (
        head.logits(features[test]).argmax(axis=1) == labels[of][test]
        for head, labels in zip(heads, named, strict=True)
    )
    right_on_new = heads[0].logits(new[0]).argmax(axis=1) == new[1]
    units = np.unique(of[test], return_inverse=True)[1]
    low, high = metrics.clustered_interval(right, units)
    low_new, high_new = metrics.wilson_interval(int(right_on_new.sum()), len(right_on_new))
    reported, new_share, by_chance = (
        round(100 * float(each.mean()), 2) for each in (right, right_on_new, random_right)
    )
    margin = round(50 * float(np.hypot(high - low, high_new - low_new)), 2)
    return _Tested(reported, new_share, by_chance, margin)


def _again(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Another picture of each thing: shifted by up to a sixteenth, a little brighter or darker."""
    reach = max(1, pixels.shape[1] // 16)
    made = np.empty_like(pixels)
    for place, image in enumerate(pixels):
        down, right = (int(value) for value in random.integers(-reach, reach + 1, 2))
        padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        side = image.shape[0]
        moved = padded[reach + down : reach + down + side, reach + right : reach + right + side]
        made[place] = np.clip(moved * random.uniform(0.92, 1.08), 0, 255)
    return made


# Few test images ------------------------------------------------------------------------------------------


def few_test_images(work: Work) -> Outcome:
    """One classifier, tested many times on few and on many images; and the best of several by a few."""
    few, many, draws = (work.number(name) for name in ("few", "many", "draws"))
    seen = _see(work, per_class=work.number("images_per_class"))
    random = np.random.default_rng(work.seed)
    pool = _parted(seen.labels, 1 - 2 * _FEWEST / np.bincount(seen.labels).max(), random)
    features = seen.features(seen.pixels)
    work.tell("features", 1, 1)
    tested, truth = features[pool], seen.labels[pool]
    right = seen.head(features[~pool], seen.labels[~pool]).logits(tested).argmax(axis=1) == truth
    accuracy = float(right.mean())
    drawn = {
        count: right[random.integers(0, len(right), (draws, count))].mean(axis=1) for count in (few, many)
    }
    spread = {count: _spread(each) for count, each in drawn.items()}
    covered = {count: _covered_by(each, accuracy, count=count) for count, each in drawn.items()}
    claimed, true = _best_of_several(seen, features, pool, few=few, random=random, work=work)
    rows = tuple(
        (
            count,
            round(100 * accuracy, 1),
            *(round(100 * float(np.quantile(drawn[count], share)), 1) for share in (0.05, 0.95)),
            spread[count],
            covered[count],
        )
        for count in (few, many)
    )
    table = Table(
        (
            "test images",
            "accuracy on all, percent",
            "lowest of the middle nine tenths, percent",
            "highest of them, percent",
            "spread, points",
            "interval holds it, percent of the tests",
        ),
        rows,
    )
    work.notes.append(
        f"{draws} tests of each size, drawn with replacement from {len(right)} test images; the spread is "
        f"that of the middle nine in ten; the best of {CONTESTANTS} equal classifiers, each trained on other "
        f"images, was chosen by {few} test images"
    )
    plot = table.plot(
        "bars",
        "The same classifier, tested on few and on many images",
        x="test images",
        y="test accuracy, percent",
        series={"lowest of the middle nine tenths": 2, "on all": 1, "highest of them": 3},
    )
    ratio = round(spread[few] / spread[many], 2) if spread[many] else None
    fields: dict[str, Value] = {
        "conclusion": f"tests on {few} images differed by {spread[few]:.3g} points, tests on {many} by "
        f"{spread[many]:.3g}; the best of {CONTESTANTS} by {few} images claimed {claimed:.3g} percent and "
        f"was right on {true:.3g}",
        "few": few,
        "many": many,
        "accuracy": round(100 * accuracy, 2),
        "spread_few": spread[few],
        "spread_many": spread[many],
        "ratio": ratio,
        "covered": covered[few],
        "best_claimed": claimed,
        "best_true": true,
    }
    return Outcome(fields, table, (plot,))


def _spread(accuracies: NDArray[np.float64]) -> float:
    """Points from the lowest to the highest of the middle nine in ten."""
    low, high = np.quantile(accuracies, (0.05, 0.95))
    return round(100 * float(high - low), 2)


def _covered_by(accuracies: NDArray[np.float64], accuracy: float, *, count: int) -> float:
    """In how many tests of so many images the 95 percent interval holds the accuracy on all; percent."""
    intervals = [metrics.wilson_interval(int(right), count) for right in np.rint(count * accuracies)]
    return round(100 * float(np.mean([low <= accuracy <= high for low, high in intervals])), 1)


def _best_of_several(
    seen: Seen,
    features: Features,
    pool: NDArray[np.bool_],
    *,
    few: int,
    random: np.random.Generator,
    work: Work,
) -> tuple[float, float]:
    """What the best of equal classifiers claims by few test images, and what it is by all; percent, means."""
    train, truth = np.flatnonzero(~pool), seen.labels[pool]
    claims, truths, rights = [], [], []
    for _ in work.each("classifiers", range(CONTESTANTS)):
        kept = train[_parted(seen.labels[train], 0.5, random)]
        head = seen.head(features[kept], seen.labels[kept])
        rights.append(head.logits(features[pool]).argmax(axis=1) == truth)
    right = np.stack(rights)
    for _ in range(CHOICES):
        test = random.permutation(len(truth))[:few]
        by_test = right[:, test].mean(axis=1)
        claims.append(by_test.max())
        truths.append(right[int(by_test.argmax())].mean())
    return round(100 * float(np.mean(claims)), 2), round(100 * float(np.mean(truths)), 2)


# A rare class ---------------------------------------------------------------------------------------------


def imbalance(work: Work) -> Outcome:
    """One class against the nine times as many images of all others: what accuracy does not say."""
    seen = _see(work, per_class=work.number("images_per_class"))
    random = np.random.default_rng(work.seed)
    rare_class = len(seen.classes) - 1
    labels = np.asarray(seen.labels == rare_class, np.int64)
    rare = random.permutation(np.flatnonzero(labels))[
        : max(_FEWEST, (len(labels) - int(labels.sum())) // RARE)
    ]
    kept = np.sort(np.concatenate([np.flatnonzero(labels == 0), rare]))
    labels = labels[kept]
    test = _parted(labels, HELD, random)
    features = seen.features(seen.pixels[kept])
    work.tell("features", 1, 1)
    truth = labels[test]
    weight = float(work.number("weight"))

    def called(times: float) -> Indices:
        head = fit_ridge((features[~test], labels[~test]), classes=2, class_weights=[1.0, times]).head
        found: Indices = head.logits(features[test]).argmax(axis=1)
        return found

    ways = (
        ("always the common one", np.zeros_like(truth)),
        ("trained as the images came", called(1.0)),
        (f"rare images weigh {weight:g} times", called(weight)),
    )
    rows = tuple((name, *_measures(truth, said)) for name, said in ways)
    table = Table(
        (
            "classifier",
            "accuracy, percent",
            "recall of the rare class, percent",
            "precision of the rare class, percent",
            "mean recall, percent",
        ),
        rows,
    )
    always, plain, weighted = rows
    share = round(100 * float(truth.mean()), 1)
    work.notes.append(
        f"the rare class is {seen.classes[rare_class]}, {int(truth.sum())} of {len(truth)} test images; all "
        "other classes together are the common one; recall is the share of the rare images that were found, "
        "precision the share that is rare of those called so"
    )
    plot = table.plot(
        "bars",
        "Three classifiers of a rare class",
        x="classifier",
        y="percent",
        series={"accuracy": 1, "recall of the rare class": 2, "mean recall": 4},
    )
    fields: dict[str, Value] = {
        "conclusion": f"calling nothing rare was right on {always[1]:.3g} percent and found no rare image; "
        f"trained as the images came it found {plain[2]:.3g} percent of them with an accuracy of "
        f"{plain[1]:.3g}, with weights {weighted[2]:.3g} percent with {weighted[1]:.3g}",
        "rare_percent": share,
        "accuracy_always": always[1],
        "mean_recall_always": always[4],
        "accuracy_plain": plain[1],
        "recall_plain": plain[2],
        "precision_plain": plain[3],
        "mean_recall_plain": plain[4],
        "accuracy": weighted[1],
        "recall": weighted[2],
        "precision": weighted[3],
        "mean_recall": weighted[4],
    }
    return Outcome(fields, table, (plot,))


def _measures(truth: Indices, said: Indices) -> tuple[float, float, float | None, float]:
    """Accuracy, recall and precision of the rare class, mean recall; percent, None where none was called."""
    found = truth[said == 1]
    recalls = [float((said[truth == label] == label).mean()) for label in (0, 1)]
    precision = round(100 * float(found.mean()), 2) if len(found) else None
    return (
        round(100 * float((truth == said).mean()), 2),
        round(100 * recalls[1], 2),
        precision,
        round(50 * sum(recalls), 2),
    )
