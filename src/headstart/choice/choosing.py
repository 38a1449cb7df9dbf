"""`--backbone auto`: a prior narrows the candidates, a probe halves them, two finalists see all images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import checks, heads
from headstart.backbones import Backbone, available, load_backbone
from headstart.backbones.builtin import BUILTIN
from headstart.choice.prior import published_accuracy, undominated
from headstart.choice.probing import Probe, probe
from headstart.choice.taps import batches, choose_taps, tap_widths
from headstart.dataset import Dataset, assign_splits
from headstart.errors import BackboneError, DatasetError, MissingExtra, OptionError
from headstart.features import Extraction, FeatureCache, Progress, Wanted, extract
from headstart.images import CENTRE, View
from headstart.places import cache_folder
from headstart.plans.budgets import beginning, interleaved
from headstart.plans.candidates import Candidate, parse_candidates
from headstart.plans.estimates import human_seconds
from headstart.plans.observing import Watch
from headstart.runtimes import Runtime

MOST_PROBED = 6
"""Candidates beyond this are left to the prior: a look costs the compiling of a network, a second or so."""

FIRST_IMAGES = (10, 72, 240)
"""Of the first rung: so many a class, but at least and at most so many in all."""

_LEAST_PER_CLASS = 2
"""However many classes there are: of an image alone in its class nothing can be left out."""

_CLEAR = 2.0
"""A finalist that leads by so many standard errors is taken without a look at all images by the other."""

_FINALISTS = 2
_HARDLY_BETTER = 0.0025
"""A lead below this share goes to the faster of two finalists."""

_PASS_SHARE = 0.6
"""Share of the allowance that one finalist's pass over all images may take."""

_BUILTIN_SIZES = (1.0, 1.5)
"""Sizes at which a built-in backbone is considered, in units of its own."""


@dataclass(frozen=True)
class Score:
    """What is known of one candidate at the end."""

    candidate: Candidate
    size: int
    prior: float | None  # published top-1 in percent
    probe: Probe | None  # the largest one
    looked_at: int  # images of the last look, which nearest neighbours and LogME are about
    seconds_per_image: float | None  # of extraction, as measured
    validation_accuracy: float | None  # finalists only
    left: str  # why it is no longer in: "dominated", "probe", "budget", "final"; "" for the chosen one

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = self.probe
        return {
            "backbone": self.candidate.name,
            "size": self.size,
            "published_top1": self.prior,
            "images": found.images if found else 0,
            "loo_accuracy": found.loo_accuracy if found else None,
            "looked_at": self.looked_at,
            "knn_accuracy": found.knn_accuracy if found else None,
            "logme": found.logme if found else None,
            "seconds_per_image": self.seconds_per_image,
            "validation_accuracy": self.validation_accuracy,
            "left": self.left,
        }


@dataclass(frozen=True)
class BackboneChoice:
    """The chosen backbone, everything that was tried, and the reasons in plain words."""

    candidate: Candidate
    backbone: Backbone
    table: tuple[Score, ...]
    reasons: tuple[str, ...]
    seconds: float


@dataclass
class _Entrant:
    """A candidate while the choice is going on."""

    candidate: Candidate
    backbone: Backbone
    prior: float | None
    probe: Probe | None = None
    looks: list[Probe] = field(default_factory=list)  # on growing parts of the images
    seconds_per_image: float | None = None
    validation_accuracy: float | None = None
    held_out: float | None = None  # share right of all images that were not fitted on; finalists only
    left: str = ""

    @property
    def label(self) -> str:
        return f"{self.candidate.label} at {self.backbone.preprocess.size} px"

    @property
    def multiply_adds(self) -> float:
        return float(sum(stage.multiply_adds for stage in self.backbone.stages))

    @property
    def rank(self) -> tuple[float, float]:
        return (self.probe.loo_accuracy, -self.probe.loo_error) if self.probe else (0.0, 0.0)


@dataclass
class _Session:
    """What one choice shares between its candidates; ``pool`` are the images that may be trained on."""

    dataset: Dataset
    pool: Dataset
    runtime: Runtime
    taps: str
    views: tuple[View, ...]
    validation: float
    test: float
    clock: Callable[[], float]
    progress: Progress | None
    class_weights: str | None
    allowance: float | None
    started: float
    reasons: list[str] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        return self.clock() - self.started


def default_candidates() -> tuple[Candidate, ...]:
    """What can be loaded here without a download, built-in ones at two sizes."""
    found = []
    for info in available():
        if info.needs and find_spec(info.needs) is None:
            continue
        if info.name in BUILTIN and info.size:
            found += [Candidate(info.name, round(scale * info.size / 32) * 32) for scale in _BUILTIN_SIZES]
        else:
            found.append(Candidate(info.name))
    return tuple(found)


def choose_backbone(
    dataset: Dataset,
    *,
    runtime: Runtime,
    candidates: Sequence[str] | None = None,
    taps: str = "last",
    views: tuple[View, ...] = (CENTRE,),
    validation: float = 0.15,
    test: float = 0.15,
    class_weights: str | None = None,
    allowance: float | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> BackboneChoice:
    """Choose among backbones by how well their frozen features separate these images.

    Every rung looks at twice as many images as the one before and keeps the better half, by the leave-one-out
    accuracy of the ridge head that a fit would give them, with the taps that it would choose; two finalists
    see all images. Features go into the cache: the fit that follows finds the winner's there. Test images
    take no part, except that near-duplicates, which only a look at all images can group, are not yet kept
    apart in the rungs.

    Args:
        dataset: the labelled images.
        runtime: what executes the networks.
        candidates: names or files, each with ``@SIZE`` for another size; None for all that are here.
        taps: what the fit that follows reads, "auto", "last" or "all".
        views: the renderings that the fit wants; only finalists are given all.
        validation: share held out to choose on, where the data does not say.
        test: share that is not looked at, where the data does not say.
        class_weights: of the fit that follows, "balanced" or None.
        allowance: seconds that the choice may take; candidates too slow for it are left out.
        progress: called with (phase, done, total).
        clock: seconds; a test passes its own.

    Raises:
        BackboneError: no candidate can be loaded.
    """
    held_out = ("validation", "test")
    pool = replace(dataset, samples=tuple(each for each in dataset.samples if each.split not in held_out))
    session = _Session(
        dataset=dataset,
        pool=interleaved(pool),
        runtime=runtime,
        taps=taps,
        views=views,
        validation=validation,
        test=test,
        clock=clock,
        progress=progress,
        class_weights=class_weights,
        allowance=allowance,
        started=clock(),
    )
    entrants = _load(session, parse_candidates(candidates) if candidates else default_candidates())
    racing = _by_prior(session, entrants)
    racing = _halve(session, racing)
    chosen = _final(session, racing)
    return BackboneChoice(
        candidate=chosen.candidate,
        backbone=chosen.backbone,
        table=tuple(_score(each) for each in entrants),
        reasons=(*session.reasons, *_reasons(chosen, entrants)),
        seconds=session.elapsed,
    )


def _load(session: _Session, candidates: Sequence[Candidate]) -> list[_Entrant]:
    entrants = []
    for candidate in candidates:
        try:
            backbone = load_backbone(candidate.name, size=candidate.size)
        except (BackboneError, MissingExtra, OptionError) as error:
            session.reasons.append(f"{candidate.label} is left out: {error}")
            continue
        entrants.append(_Entrant(candidate, backbone, published_accuracy(backbone)))
    if not entrants:
        raise BackboneError("; ".join(session.reasons) or "no backbone is here to choose from")
    return entrants


def _by_prior(session: _Session, entrants: list[_Entrant]) -> list[_Entrant]:
    """Leave out what is both slower and published as worse, where there are many; then keep the best."""
    if len(entrants) <= MOST_PROBED:
        return list(entrants)
    kept = undominated([each.multiply_adds for each in entrants], [each.prior for each in entrants])
    best = sorted(kept, key=lambda i: -(entrants[i].prior or 100.0))[:MOST_PROBED]
    for index, each in enumerate(entrants):
        if index not in best:
            each.left = "dominated"
    session.reasons.append(
        f"{len(entrants) - len(best)} of {len(entrants)} candidates left out by published accuracy and speed"
    )
    return [entrants[index] for index in sorted(best)]


def _halve(session: _Session, racing: list[_Entrant]) -> list[_Entrant]:
    """Rungs of twice as many images, each keeping the better half, until the finalists are left."""
    per_class, least, most = FIRST_IMAGES
    classes = len(session.dataset.classes)
    images = min(max(per_class * classes, least), max(most, _LEAST_PER_CLASS * classes))
    if len(racing) == 1:
        return racing
    while True:
        for each in racing:
            _look(session, each, images=images)
        racing = _affordable(session, racing)
        racing.sort(key=lambda each: each.rank, reverse=True)
        if len(racing) <= _FINALISTS:
            return _without_hopeless(racing)
        keep = max(_FINALISTS, (len(racing) + 1) // 2)
        for each in racing[keep:]:
            each.left = "probe"
        racing, images = racing[:keep], 2 * images


def _without_hopeless(finalists: list[_Entrant]) -> list[_Entrant]:
    """The finalists, best first, without those that the last look puts clearly behind."""
    best = finalists[0].probe
    kept = []
    for each in finalists:
        found = each.probe
        if best is not None and found is not None:
            error = (best.standard_error**2 + found.standard_error**2) ** 0.5
            if best.loo_accuracy - found.loo_accuracy > _CLEAR * error:
                each.left = "probe"
                continue
        kept.append(each)
    return kept


def _affordable(session: _Session, racing: list[_Entrant]) -> list[_Entrant]:
    """Without those whose pass over all images the allowance cannot pay; the fastest one always stays."""
    if session.allowance is None:
        return racing
    left = session.allowance - session.elapsed
    whole = {id(each): (each.seconds_per_image or 0.0) * len(session.dataset) for each in racing}
    kept = [each for each in racing if whole[id(each)] <= max(_PASS_SHARE * left, 0.0)]
    if not kept:
        kept = [min(racing, key=lambda each: whole[id(each)])]
    for each in racing:
        if each not in kept:
            each.left = "budget"
            session.reasons.append(
                f"{each.label} is left out: all images would take {human_seconds(whole[id(each)])}"
            )
    return kept


def _extract(
    session: _Session,
    entrant: _Entrant,
    dataset: Dataset,
    views: tuple[View, ...],
    *,
    progress: Progress | None,
) -> Extraction:
    wanted = Wanted(depth=len(entrant.backbone.stages), views=views, taps=session.taps != "last")
    return extract(
        dataset.samples,
        entrant.backbone,
        wanted=wanted,
        runtime=session.runtime,
        cache=FeatureCache(cache_folder()),
        progress=progress,
    )


def _look(session: _Session, entrant: _Entrant, *, images: int) -> None:
    """Probe one candidate on the first so many images that are to be trained on."""
    part = beginning(session.pool, round(images / (1 - session.validation - session.test)))
    watch = Watch(session.progress, session.clock)
    watch.begin("features")
    extraction = _extract(session, entrant, part, (CENTRE,), progress=watch)
    if extraction.use.misses:
        entrant.seconds_per_image = _pace(watch, computed=extraction.use.misses)
    rows = _training_rows(session, part, extraction)
    features, labels = extraction.features(rows, view=CENTRE), part.labels
    fitted, _ = _fit_head(session, extraction, labels, rows)
    entrant.probe = probe(features, labels[rows], classes=len(part.classes), fitted=fitted)
    entrant.looks.append(entrant.probe)


def _pace(watch: Watch, *, computed: int) -> float:
    """Seconds an image, without what making the network ready took where that can be told."""
    mark = watch.marks["features"]
    (first, done), (last, all_done) = mark.first or (mark.begun, 0), mark.last or (watch.clock(), computed)
    if 2 * done <= all_done:
        return (last - first) / (all_done - done)
    return (last - mark.begun) / computed


def _training_rows(session: _Session, part: Dataset, extraction: Extraction) -> NDArray[np.int64]:
    """Images of the training split, of the classes that the part has a readable image of."""
    readable = [found is not None for found in extraction.hashes]
    labels = part.labels
    present = np.unique(labels[readable])
    if not len(present):
        raise DatasetError(
            f"{part.name}: none of {len(part)} images could be read; headstart check says more"
        )
    kept = np.flatnonzero(np.isin(labels, present))
    known = replace(
        part,
        classes=tuple(part.classes[label] for label in present),
        samples=tuple(replace(part.samples[i], label=int(np.searchsorted(present, labels[i]))) for i in kept),
    )
    hashes = [extraction.hashes[i] for i in kept]
    splits = assign_splits(known, hashes, (), validation=session.validation, test=session.test)
    return np.array([i for i, split in zip(kept, splits, strict=True) if split == "train"], dtype=np.int64)


def _final(session: _Session, finalists: list[_Entrant]) -> _Entrant:
    """All images for each finalist; the one that is right more often on images it was not fitted on."""
    if len(finalists) == 1:
        return finalists[0]
    for each in finalists:
        _run_in_full(session, each)
        if session.allowance is not None and session.elapsed > session.allowance:
            break
    seen = [(each.held_out, each) for each in finalists if each.held_out is not None]
    best, chosen = max(seen, key=lambda pair: pair[0])
    for right, other in seen:
        if best - right < _HARDLY_BETTER and other.multiply_adds < chosen.multiply_adds:
            chosen = other
    for each in finalists:
        if each is not chosen:
            each.left = "final"
    return chosen


def _run_in_full(session: _Session, entrant: _Entrant) -> None:
    dataset = session.dataset
    extraction = _extract(session, entrant, dataset, session.views, progress=session.progress)
    groups = checks.duplicate_groups(extraction.hashes, extraction.facts)
    splits = np.array(
        [
            split or ""
            for split in assign_splits(
                dataset, extraction.hashes, groups, validation=session.validation, test=session.test
            )
        ]
    )
    train, validation = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "validation")
    labels = dataset.labels
    fitted, taps = _fit_head(session, extraction, labels, train)
    right = fitted.loo_accuracy * len(train)
    if len(validation):
        scores = fitted.head.logits(extraction.features(validation, taps=taps, view=CENTRE))
        correct = float((scores.argmax(axis=1) == labels[validation]).sum())
        entrant.validation_accuracy = correct / len(validation)
        right += correct
    entrant.held_out = right / (len(train) + len(validation))
    if entrant.probe is not None:
        entrant.probe = replace(
            entrant.probe,
            images=len(train),
            loo_accuracy=fitted.loo_accuracy,
            loo_error=fitted.loo_error,
        )


def _fit_head(
    session: _Session, extraction: Extraction, labels: NDArray[np.int64], train: NDArray[np.int64]
) -> tuple[heads.RidgeFit, tuple[str, ...] | None]:
    """The head that a fit on these images would get, and the taps that it reads, None for the last layer."""
    classes, own = len(session.dataset.classes), labels[train]
    taps, _ = choose_taps(
        extraction, train, own, taps=session.taps, classes=classes, class_weights=session.class_weights
    )
    fitted = heads.fit_ridge(
        partial(batches, extraction, train, own, taps=taps),
        classes=classes,
        block_widths=tap_widths(extraction, taps),
        class_weights=session.class_weights,
    )
    return fitted, taps


def _score(entrant: _Entrant) -> Score:
    return Score(
        candidate=entrant.candidate,
        size=entrant.backbone.preprocess.size,
        prior=entrant.prior,
        probe=entrant.probe,
        looked_at=entrant.looks[-1].images if entrant.looks else 0,
        seconds_per_image=entrant.seconds_per_image,
        validation_accuracy=entrant.validation_accuracy,
        left=entrant.left,
    )


def _reasons(chosen: _Entrant, entrants: Sequence[_Entrant]) -> list[str]:
    """Why this one, in plain words."""
    if len(entrants) == 1:
        return [f"backbone {chosen.label}: the only candidate here"]
    if chosen.probe is None:
        return [f"backbone {chosen.label}"]
    found = []
    rival = next((each for each in entrants if each.left == "final" and each.held_out is not None), None)
    measured = f"{chosen.probe.loo_accuracy:.1%} leave-one-out on {chosen.probe.images} images"
    first = f"backbone {chosen.label}: {measured}"
    if rival is not None and rival.held_out is not None and chosen.held_out is not None:
        gap = 100 * (chosen.held_out - rival.held_out)
        if gap >= 0:
            first += f", {gap:.1f} points ahead of {rival.label} on all images"
        else:
            first += f", faster than {rival.label} and only {-gap:.1f} points behind"
    elif chosen.looks and chosen.held_out is None and not any(each.left == "budget" for each in entrants):
        first += ", so far ahead that no other was given a look at all of them"
    found += [first, *_dropped(chosen, entrants)]
    looked = [(each.looks[0].knn_accuracy, each.label) for each in entrants if each.looks]
    if chosen.looks and looked:  # the first look, which all had at the same images
        own, (best, label) = chosen.looks[0], max(looked)
        if best - own.knn_accuracy > own.standard_error:
            against = f"{best:.1%} against {own.knn_accuracy:.1%} on {own.images} images"
            found.append(f"nearest neighbours would rather take {label} ({against})")
    return found


def _dropped(chosen: _Entrant, entrants: Sequence[_Entrant]) -> list[str]:
    """Who was left behind after which look, and what the chosen one had on the same images."""
    rungs: dict[int, list[tuple[str, float]]] = {}
    for each in entrants:
        if each.left == "probe" and each.probe is not None:
            rungs.setdefault(each.probe.images, []).append((each.label, each.probe.loo_accuracy))
    found = []
    for images, behind in sorted(rungs.items()):
        own = next((look.loo_accuracy for look in chosen.looks if look.images == images), None)
        against = "" if own is None else f", where it had {own:.1%}"
        behind.sort(key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {accuracy:.1%}" for label, accuracy in behind)
        found.append(f"dropped after a look at {images} images{against}: {others}")
    return found
