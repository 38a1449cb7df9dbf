"""`--backbone auto`: a prior narrows the candidates, a probe halves them, two finalists see all images."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from headstart import heads
from headstart.backbones import Backbone, available
from headstart.backbones.builtin import BUILTIN
from headstart.backbones.runtimes import Runtime
from headstart.costs import CostEstimate, Timings, Workload
from headstart.costs.budgets import beginning, interleaved
from headstart.costs.formulas import NOTHING
from headstart.costs.observed import of_features
from headstart.costs.timings import remember
from headstart.data.dataset import Dataset
from headstart.data.images import CENTRE, View
from headstart.data.splits import assign_splits, split
from headstart.errors import BackboneError, DatasetError, MissingExtra, OptionError
from headstart.features import Extraction, FeatureCache, FeatureSpec, extract
from headstart.files import cache_folder
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback, Callbacks, Clock, PhaseTimer
from headstart.runs.formatting import human_seconds
from headstart.training.backbone_names import BackboneName, load_named, parse_names, sized
from headstart.training.contenders import Contender, ContenderScore, Probe, reasons, score
from headstart.training.layer_features import batches, choose_layers, layer_widths
from headstart.training.published_accuracy import published_accuracy, undominated
from headstart.training.resolving import resolve

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

_MOST_HITS = 0.1
"""Images that were cached already, over those computed, up to which a look says what computing takes."""

_BUILTIN_SIZES = (1.0, 1.5)
"""Sizes at which a built-in backbone is considered, in units of its own."""

_HEAD = CostEstimate({"choice": 0.2}, 0.5)
"""Fitting a head on what a look gave, its layers chosen."""

_UNDECIDED = 0.5
"""How far a choice's seconds may be off beside its looks': who goes on, and how soon it is clear, is open."""


@dataclass(frozen=True)
class BackboneChoice:
    """The chosen backbone, everything that was tried, and the reasons in plain words."""

    candidate: BackboneName
    backbone: Backbone
    table: tuple[ContenderScore, ...]
    reasons: tuple[str, ...]
    seconds: float


@dataclass
class _Session:
    """What one choice shares between its candidates; ``pool`` are the images that may be trained on."""

    dataset: Dataset
    pool: Dataset
    config: FitConfig
    layers: str
    runtime: Runtime
    clock: Clock
    watch: Callback
    allowance: float | None
    started: float
    timings: Timings = field(default_factory=Timings.load)
    reasons: list[str] = field(default_factory=list)

    @cached_property
    def views(self) -> tuple[View, ...]:
        """The renderings that the fit wants."""
        return tuple(View(name) for name in self.config.views)

    @property
    def elapsed(self) -> float:
        return self.clock() - self.started

    def leaves(self, seconds: float = 0.0) -> bool:
        """Whether so much more is allowed."""
        return self.allowance is None or self.elapsed + seconds <= self.allowance

    def look_config(self, contender: Contender, *, views: tuple[View, ...]) -> FitConfig:
        """A ridge head on the frozen network: what a look trains."""
        names = tuple(view.name for view in views)
        asked = replace(self.config, freeze="all", head="ridge", layers=self.layers, views=names)
        return resolve(asked, self.dataset, contender.backbone, runtime=self.runtime)

    def look(self, contender: Contender, dataset: Dataset, *, views: tuple[View, ...]) -> CostEstimate:
        """Seconds to have these views of some images and a head on them; what is cached costs nothing."""
        config = self.look_config(contender, views=views)
        job = Workload.of(config, dataset, contender.backbone, runtime=self.runtime)
        found = job.estimate(self.timings, phases=("features",))
        pace = contender.seconds_per_image
        if pace is not None and found.seconds:
            found = CostEstimate({"choice": pace * len(views) * job.counts.missing}, _UNDECIDED / 2)
        return CostEstimate({"choice": found.seconds}, found.spread) + _HEAD


class _TimeIsUp(Exception):
    """The time for choosing is up in the middle of a look, which is given up."""


@dataclass
class _Allowance(Callback):
    """Gives a look up when the time for choosing is up."""

    session: _Session

    def on_progress(self, phase: str, done: int, total: int) -> None:
        if done < total and not self.session.leaves():
            raise _TimeIsUp


def default_candidates() -> tuple[BackboneName, ...]:
    """What can be loaded here without a download, built-in ones at two sizes."""
    found = []
    for info in available():
        if info.needs and find_spec(info.needs) is None:
            continue
        if info.name in BUILTIN and info.size:
            found += [BackboneName(info.name, round(scale * info.size / 32) * 32) for scale in _BUILTIN_SIZES]
        else:
            found.append(BackboneName(info.name))
    return tuple(found)


def choose_backbone(
    dataset: Dataset,
    config: FitConfig,
    *,
    runtime: Runtime,
    allowance: float | None = None,
    watch: Callback | None = None,
    clock: Clock = time.perf_counter,
) -> BackboneChoice:
    """Choose among backbones by how well their frozen features separate these images.

    Every rung looks at twice as many images as the one before and keeps the better half, by the leave-one-out
    accuracy of the ridge head that a fit would give them, with the layers that it would choose; two finalists
    see all images. Features go into the cache: the fit that follows finds the winner's there. Test images
    take no part, except that near-duplicates, which only a look at all images can group, are not yet kept
    apart in the rungs.

    Args:
        dataset: the labelled images.
        config: the fit that follows. Its candidates race, those without a size of their own at its size;
            only finalists are given all its views.
        runtime: what executes the networks.
        allowance: seconds that the choice may take; candidates too slow for it are left out, and when it is
            used up the best one so far is taken.
        watch: told what choice and fit are predicted to take, before an image is looked at, then of progress.
        clock: seconds; a test passes its own.

    Raises:
        BackboneError: no candidate can be loaded.
    """
    watch = watch or Callback()
    reads_layers = config.head == "ridge" and config.freeze in ("all", "auto")
    layers = str(config.layers or "last") if reads_layers else "last"
    candidates = sized(config.candidates, size=config.size)
    held_out = ("validation", "test")
    pool = replace(dataset, samples=tuple(each for each in dataset.samples if each.split not in held_out))
    session = _Session(
        dataset=dataset,
        pool=interleaved(pool),
        config=config,
        layers=layers,
        runtime=runtime,
        clock=clock,
        watch=watch,
        allowance=allowance,
        started=clock(),
    )
    contenders = _load(session, parse_names(candidates) if candidates else default_candidates())
    racing = _by_prior(session, contenders)
    if len(racing) > 1:
        expected = _expected(session, racing)
        watch.on_estimate(expected.range(spent=session.elapsed), expected.phases)
    watch.on_phase_begin("choice")
    chosen = _final(session, _halve(session, racing))
    choice = BackboneChoice(
        candidate=chosen.candidate,
        backbone=chosen.backbone,
        table=tuple(score(each) for each in contenders),
        reasons=(*session.reasons, *reasons(chosen, contenders)),
        seconds=session.elapsed,
    )
    watch.on_phase_end("choice", choice)
    return choice


def _load(session: _Session, candidates: Sequence[BackboneName]) -> list[Contender]:
    contenders: list[Contender] = []
    for candidate in candidates:
        if contenders and not session.leaves():
            session.reasons.append(f"{candidate.label} is left out: no time was left to load it")
            continue
        try:
            known, backbone = load_named(candidate)
        except (BackboneError, MissingExtra, OptionError) as error:
            session.reasons.append(f"{candidate.label} is left out: {error}")
            continue
        contenders.append(Contender(known, backbone, published_accuracy(backbone)))
    if not contenders:
        raise BackboneError("; ".join(session.reasons) or "no backbone is here to choose from")
    return contenders


def _by_prior(session: _Session, contenders: list[Contender]) -> list[Contender]:
    """Leave out what is both slower and published as worse, where there are many; then keep the best."""
    if len(contenders) <= MOST_PROBED:
        return list(contenders)
    kept = undominated([each.multiply_adds for each in contenders], [each.prior for each in contenders])
    best = sorted(kept, key=lambda i: -(contenders[i].prior or 100.0))[:MOST_PROBED]
    for index, each in enumerate(contenders):
        if index not in best:
            each.left = "dominated"
    session.reasons.append(
        f"{len(contenders) - len(best)} of {len(contenders)} candidates left out by published accuracy "
        "and speed"
    )
    return [contenders[index] for index in sorted(best)]


def _expected(session: _Session, racing: Sequence[Contender]) -> CostEstimate:
    """What choice and fit will take: the mean of their fits, as which one it will be is not known."""
    choice = _usual_looks(session, racing)
    if session.allowance is not None:
        choice = choice.times(min(1.0, max(0.0, session.allowance - session.elapsed) / choice.seconds))
    found, fits = replace(choice, spread=max(choice.spread, _UNDECIDED)), []
    for each in racing:
        with suppress(OptionError, MissingExtra):  # one that cannot be trained so is found out in time
            asked = replace(session.config, backbone=each.candidate.name)
            config = resolve(asked, session.dataset, each.backbone, runtime=session.runtime)
            job = Workload.of(config, session.dataset, each.backbone, runtime=session.runtime)
            cached = replace(job, counts=replace(job.counts, missing=0.0))  # by the choice
            fits.append(cached.estimate(session.timings))
    for fit in fits:
        found += fit.times(1 / len(fits))
    return found


def _usual_looks(session: _Session, racing: Sequence[Contender]) -> CostEstimate:
    """The looks of a choice that goes all its way; of those whose turn is not known, the mean one's."""

    def looks(dataset: Dataset, views: tuple[View, ...]) -> CostEstimate:
        return sum((session.look(each, dataset, views=views) for each in racing), NOTHING)

    def mean(dataset: Dataset, views: tuple[View, ...]) -> CostEstimate:
        return looks(dataset, views).times(1 / len(racing))

    images, count = _first_images(session), len(racing)
    found = looks(_part(session, images), (CENTRE,))
    while count > _FINALISTS:
        count, images = _kept(count), 2 * images
        found += mean(_part(session, images), (CENTRE,)).times(0.5 * count)  # half were seen before
    return found + mean(session.dataset, session.views).times(_FINALISTS)


def _first_images(session: _Session) -> int:
    per_class, least, most = FIRST_IMAGES
    classes = len(session.dataset.classes)
    return min(max(per_class * classes, least), max(most, _LEAST_PER_CLASS * classes))


def _kept(count: int) -> int:
    """How many of so many go on to the next rung."""
    return max(_FINALISTS, (count + 1) // 2)


def _halve(session: _Session, racing: list[Contender]) -> list[Contender]:
    """Rungs of twice as many images, each keeping the better half, until the finalists are left."""
    if len(racing) == 1:
        return racing
    images = _first_images(session)
    racing = sorted(racing, key=lambda each: each.multiply_adds)  # where time is short, the fastest take part
    racing = _without_late(session, racing, _rung(session, racing, images=images))
    while True:
        racing = _affordable(session, racing)
        racing.sort(key=lambda each: each.rank, reverse=True)
        if len(racing) <= _FINALISTS:
            return _without_hopeless(racing)
        keep = _kept(len(racing))
        for each in racing[keep:]:
            each.left = "probe"
        racing, images = racing[:keep], 2 * images
        if len(_rung(session, racing, images=images)) < len(racing):
            return _ahead(session, racing, f"a look at {images} images by all")


def _rung(session: _Session, racing: Sequence[Contender], *, images: int) -> list[Contender]:
    """Those that looked at so many images, as far as the time goes."""
    looked = []
    part = _part(session, images)
    for each in racing:
        if not _pays(session, [each], part, views=(CENTRE,)):
            continue
        try:
            _look(session, each, images=images)
        except _TimeIsUp:
            break
        looked.append(each)
    return looked


def _pays(
    session: _Session, contenders: Sequence[Contender], dataset: Dataset, *, views: tuple[View, ...]
) -> bool:
    """Whether what is left of the allowance is enough for a look by each of these."""
    if session.allowance is None:
        return True
    return session.leaves(sum(session.look(each, dataset, views=views).seconds for each in contenders))


def _without_late(
    session: _Session, racing: Sequence[Contender], looked: Sequence[Contender]
) -> list[Contender]:
    """Those that had a look; where nobody had, the fastest."""
    kept = list(looked or racing[:1])
    late = [each for each in racing if each not in kept]
    for each in late:
        each.left = "budget"
    if late:
        names = ", ".join(each.label for each in late)
        session.reasons.append(f"without {names}: no time was left for a look")
    return kept


def _ahead(session: _Session, racing: Sequence[Contender], missed: str) -> list[Contender]:
    """The best so far, when the time for choosing is up."""
    best, *others = racing
    for each in others:
        each.left = "budget"
    session.reasons.append(f"no time was left for {missed}, so the one that was ahead is taken")
    return [best]


def _without_hopeless(finalists: list[Contender]) -> list[Contender]:
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


def _affordable(session: _Session, racing: list[Contender]) -> list[Contender]:
    """Without those whose pass over all images the allowance cannot pay; the fastest one always stays."""
    if session.allowance is None:
        return racing
    views = session.views
    whole = {id(each): session.look(each, session.dataset, views=views).seconds for each in racing}
    kept = [each for each in racing if whole[id(each)] <= _PASS_SHARE * session.allowance]
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
    session: _Session, contender: Contender, dataset: Dataset, *, views: tuple[View, ...]
) -> Extraction:
    """The features of some images; what computing one takes is noted where that can be told."""
    config, backbone = session.look_config(contender, views=views), contender.backbone
    spec = FeatureSpec.of(config)
    timer = PhaseTimer(session.clock)
    watch = Callbacks([timer, _Allowance(session), session.watch])
    timer.on_phase_begin("features")
    found = extract(
        dataset.samples,
        backbone,
        spec=spec,
        runtime=session.runtime,
        cache=FeatureCache(cache_folder()),
        progress=watch.on_progress,
    )
    timer.on_phase_end("features", found)
    looked, use = timer.phases["features"], found.use
    remember(
        of_features(
            looked,
            use,
            config=config,
            backbone=backbone,
            images=len(dataset),
            spec=spec,
            timings=session.timings,
        )
    )
    if use.misses and use.hits <= _MOST_HITS * use.misses and looked.first and looked.last:
        (first, before), (last, done) = looked.first, looked.last
        steady = 2 * before <= done  # else making the network ready cannot be told from running it
        seconds = (last - first) / (done - before) if steady else (last - looked.begun) / len(dataset)
        contender.seconds_per_image = seconds / len(views)
    return found


def _part(session: _Session, images: int) -> Dataset:
    """Of what may be trained on, so much that about so many images are for training."""
    return beginning(session.pool, round(images / (1 - session.config.validation - session.config.test)))


def _look(session: _Session, contender: Contender, *, images: int) -> None:
    """Probe one candidate on the first so many images that are to be trained on."""
    part = _part(session, images)
    extraction = _extract(session, contender, part, views=(CENTRE,))
    rows = _training_rows(session, part, extraction)
    fitted, _ = _fit_head(session, extraction, part.labels, rows)
    contender.probe = Probe.of(fitted)
    contender.looks.append(contender.probe)


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
    splits = assign_splits(known, hashes, (), validation=session.config.validation, test=session.config.test)
    return np.array([i for i, side in zip(kept, splits, strict=True) if side == "train"], dtype=np.int64)


def _final(session: _Session, finalists: list[Contender]) -> Contender:
    """All images for each finalist; the one that is right more often on images it was not fitted on."""
    if len(finalists) == 1:
        return finalists[0]
    if _pays(session, finalists, session.dataset, views=session.views):
        with suppress(_TimeIsUp):
            for each in finalists:
                _run_in_full(session, each)
    seen = [(each.held_out, each) for each in finalists if each.held_out is not None]
    if len(seen) < len(finalists):
        return _ahead(session, finalists, "a look at all images by both")[0]
    best, chosen = max(seen, key=lambda pair: pair[0])
    for right, other in seen:
        if best - right < _HARDLY_BETTER and other.multiply_adds < chosen.multiply_adds:
            chosen = other
    for each in finalists:
        if each is not chosen:
            each.left = "final"
    return chosen


def _run_in_full(session: _Session, contender: Contender) -> None:
    dataset = session.dataset
    extraction = _extract(session, contender, dataset, views=session.views)
    found = split(
        dataset,
        extraction.hashes,
        extraction.facts,
        validation=session.config.validation,
        test=session.config.test,
        near_duplicates=session.config.near_duplicates,
    )
    splits = np.array([side or "" for side in found.sides])
    train, validation = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "validation")
    labels = dataset.labels
    fitted, layers = _fit_head(session, extraction, labels, train)
    right = fitted.loo_accuracy * len(train)
    if len(validation):
        scores = fitted.head.logits(extraction.features(validation, layers=layers, view=CENTRE))
        correct = float((scores.argmax(axis=1) == labels[validation]).sum())
        contender.validation_accuracy = correct / len(validation)
        right += correct
    contender.held_out = right / (len(train) + len(validation))
    if contender.probe is not None:
        contender.probe = Probe.of(fitted)


def _fit_head(
    session: _Session, extraction: Extraction, labels: NDArray[np.int64], train: NDArray[np.int64]
) -> tuple[heads.RidgeFit, tuple[str, ...] | None]:
    """The head that a fit on these images would get, and the layers it reads, None for the last."""
    classes, own = len(session.dataset.classes), labels[train]
    layers, _ = choose_layers(
        extraction,
        train,
        own,
        layers=session.layers,
        classes=classes,
        class_weights=session.config.class_weights,
    )
    fitted = heads.fit_ridge(
        partial(batches, extraction, train, own, layers=layers),
        classes=classes,
        block_widths=layer_widths(extraction, layers),
        class_weights=session.config.class_weights,
    )
    return fitted, layers
