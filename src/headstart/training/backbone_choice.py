"""`--backbone auto`: published accuracy narrows the candidates, and looks at more and more images decide."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime
from headstart.costs import Budget, CostEstimate, ImageCounts, Workload
from headstart.costs.budgets import CAREFUL
from headstart.costs.formulas import NOTHING
from headstart.data.dataset import Dataset
from headstart.errors import BackboneError, MissingExtra, OptionError
from headstart.runs import FitConfig
from headstart.runs.callbacks import Callback, Clock
from headstart.runs.formatting import human_seconds
from headstart.training.backbone_names import BackboneName, default_candidates, load_named, parse_names, sized
from headstart.training.contenders import Contender, why
from headstart.training.expected_accuracy import HARDLY_BETTER, by_published, recommend
from headstart.training.probes import Probing, TimeIsUp
from headstart.training.published_accuracy import published_accuracy, undominated
from headstart.training.resolving import refuse_weights, resolve

MOST_PROBED = 6
"""Candidates beyond this are left to the prior: a look costs the compiling of a network, a second or so."""

_CHOICE_SHARE = 0.5
"""Of the seconds for choice and fit, what choosing may take; the winner's features stay."""

_UNDECIDED = 0.5
"""How far a choice's seconds may be off beside its looks': who goes on, and how soon it is clear, is open."""


@dataclass(frozen=True)
class BackboneChoice:
    """The chosen backbone, everything that was tried, and the reasons in plain words."""

    candidate: BackboneName
    backbone: Backbone
    table: tuple[Contender, ...]
    reasons: tuple[str, ...]
    seconds: float


def choose_backbone(
    dataset: Dataset,
    config: FitConfig,
    *,
    runtime: Runtime,
    seconds: float | None = None,
    watch: Callback | None = None,
    clock: Clock = time.perf_counter,
) -> BackboneChoice:
    """Choose among backbones by the accuracy that is expected of them on these images.

    Every round looks at twice as many images as the one before and keeps the better half, without those that
    are not expected to win; the accuracy to expect joins leave-one-out of the ridge head that a fit would
    give with the published accuracy. Features go into the cache: the fit that follows finds the winner's
    there. Test images take no part, except that near-duplicates, which only a look at all images can group,
    are not yet kept apart.

    Args:
        dataset: the labelled images.
        config: the fit that follows. Its candidates race, those without a size of their own at its size.
        runtime: what executes the networks.
        seconds: for choice and fit together. Choosing may take half; candidates whose fit is predicted to
            take more than is left are not chosen, unless all are.
        watch: told what choice and fit are predicted to take, before an image is looked at, then of progress.
        clock: seconds; a test passes its own.

    Raises:
        BackboneError: no candidate can be loaded.
        OptionError: images have weights, which looks do not know.
    """
    refuse_weights(dataset, "backbone=auto")
    watch = watch or Callback()
    allowance = None if seconds is None else _CHOICE_SHARE * seconds
    probing = Probing(dataset, config, runtime, watch, clock, allowance)
    names = sized(config.candidates, size=config.size)
    contenders, reasons = _load(probing, parse_names(names) if names else default_candidates())
    racing = _by_published(contenders, reasons)
    if len(racing) > 1:
        expected = _expected_seconds(probing, racing)
        watch.on_estimate(expected.range(spent=probing.elapsed), expected.phases)
    watch.on_phase_begin("choice")
    race = _Race(probing, contenders, seconds, reasons)
    chosen, reason = race.run(racing)
    choice = BackboneChoice(
        candidate=chosen.candidate,
        backbone=chosen.backbone,
        table=tuple(contenders),
        reasons=(reason, *reasons, *_dropped(chosen, contenders)),
        seconds=probing.elapsed,
    )
    watch.on_phase_end("choice", choice)
    return choice


def smaller_backbone(
    asked: FitConfig, dataset: Dataset, backbone: Backbone, *, runtime: Runtime, budget: Budget
) -> tuple[str, Backbone, tuple[str, ...]]:
    """A named backbone; or a smaller one, where the budget would cost it images and that costs more accuracy.

    Of a backbone that was asked for by name smaller sizes are tried, of the default any smaller network, by
    what is published of them: nothing is looked at. A size that was asked for stays.

    Returns:
        The name, the backbone, and in words what that costs.
    """
    default = asked.backbone == FitConfig.backbone
    name = backbone.name if default else asked.backbone
    own = Contender(BackboneName(name), backbone, published_accuracy(backbone))
    open_to_others = asked.size is None and asked.pretrained and asked.freeze in ("all", "auto")
    if budget.seconds is None or not open_to_others:
        return asked.backbone, backbone, ()

    def judged(contender: Contender) -> tuple[float, bool]:
        """The accuracy to expect within the budget, and whether that is with all images."""
        named = replace(asked, backbone=contender.candidate.name)
        job = Workload.of(
            resolve(named, dataset, contender.backbone, runtime=runtime),
            dataset,
            contender.backbone,
            runtime=runtime,
        )
        try:
            kept = budget.cut(job)[0].counts
        except OptionError:
            return 0.0, False
        of, classes = job.counts.training, job.counts.classes
        accuracy = by_published(contender.published, training_images=kept.training, of=of, classes=classes)
        return accuracy, kept.images == job.counts.images

    best, (accuracy, whole) = own, judged(own)
    if whole:
        return asked.backbone, backbone, ()
    alike = [each for each in default_candidates() if default or each.name == name]
    for each in _smaller(own, [load_named(name) for name in alike]):
        found, whole = judged(each)
        if found > accuracy or not accuracy:  # where nothing fits, the last one says what it needs
            best, accuracy = each, found
        if whole:
            break
    if best is own:
        return asked.backbone, backbone, ()
    images = ImageCounts.of(dataset, asked).training
    lost = by_published(own.published, training_images=images, of=images, classes=1) - accuracy
    note = (
        f"budget {human_seconds(budget.seconds)}: {best.label} instead of {own.label}, which by published "
        f"accuracy costs about {100 * lost:.1f} points"
    )
    return best.candidate.name, best.backbone, (note,)


def _smaller(own: Contender, others: Sequence[tuple[BackboneName, Backbone]]) -> list[Contender]:
    """Those that compute less, the best published first."""
    found = [Contender(name, backbone, published_accuracy(backbone)) for name, backbone in others]
    fewer = [each for each in found if each.multiply_adds < own.multiply_adds]
    return sorted(fewer, key=lambda each: -(each.published or 0.0))


def _load(probing: Probing, candidates: Sequence[BackboneName]) -> tuple[list[Contender], list[str]]:
    """Those that can be loaded, and why the others are left out."""
    contenders: list[Contender] = []
    reasons: list[str] = []
    for candidate in candidates:
        if contenders and not probing.leaves():
            reasons.append(f"{candidate.label} is left out: no time was left to load it")
            continue
        try:
            known, backbone = load_named(candidate, preprocess=probing.config.preprocess)
        except (BackboneError, MissingExtra, OptionError) as error:
            reasons.append(f"{candidate.label} is left out: {error}")
            continue
        contenders.append(Contender(known, backbone, published_accuracy(backbone)))
    if not contenders:
        raise BackboneError("; ".join(reasons) or "no backbone is here to choose from")
    return contenders, reasons


def _by_published(contenders: list[Contender], reasons: list[str]) -> list[Contender]:
    """Leave out what is both slower and published as worse, where there are many; then keep the best."""
    if len(contenders) <= MOST_PROBED:
        return list(contenders)
    kept = undominated([each.multiply_adds for each in contenders], [each.published for each in contenders])
    best = sorted(kept, key=lambda i: -(contenders[i].published or 100.0))[:MOST_PROBED]
    for index, each in enumerate(contenders):
        if index not in best:
            each.left = "dominated"
    reasons.append(
        f"{len(contenders) - len(best)} of {len(contenders)} candidates left out by published accuracy "
        "and speed"
    )
    return [contenders[index] for index in sorted(best)]


def _expected_seconds(probing: Probing, racing: Sequence[Contender]) -> CostEstimate:
    """What choice and fit will take: the mean of their fits, as which one it will be is not known."""
    choice = _usual_looks(probing, racing)
    if probing.allowance is not None:
        left = max(0.0, probing.allowance - probing.elapsed)
        choice = choice.times(min(1.0, left / choice.seconds))
    found, fits = CostEstimate({"choice": choice.seconds}, max(choice.spread, _UNDECIDED)), []
    for each in racing:
        with suppress(OptionError, MissingExtra):  # one that cannot be trained so is found out in time
            fits.append(probing.fit_cost(each))
    for fit in fits:
        found += fit.times(1 / len(fits))
    return found


def _usual_looks(probing: Probing, racing: Sequence[Contender]) -> CostEstimate:
    """The looks of a choice; of those whose turn is not known, the mean one's."""

    def looks(images: int) -> CostEstimate:
        return sum((probing.look_cost(each, images=images) for each in racing), NOTHING)

    images, count = probing.first_images, len(racing)
    found = looks(images)
    while count > 1 and images < probing.training_images:
        count, images = _kept(count), 2 * images
        found += looks(images).times(0.5 * count / len(racing))  # half were seen before
    return found


def _kept(count: int) -> int:
    """How many of so many look on."""
    return max(2, (count + 1) // 2)


@dataclass
class _Race:
    """Rounds of looks at more and more images by fewer and fewer candidates."""

    probing: Probing
    contenders: Sequence[Contender]
    seconds: float | None
    reasons: list[str]

    def run(self, racing: Sequence[Contender]) -> tuple[Contender, str]:
        """The one to take, and why."""
        if len(self.contenders) == 1:
            (only,) = self.contenders
            return only, f"backbone {only.label}: the only candidate here"
        images = self.probing.first_images
        racing = sorted(racing, key=lambda each: each.multiply_adds)  # where time is short, the fastest look
        racing = self._without_late(racing, self._round(racing, images=images))
        racing = self._hopeful(racing, images=2 * images)
        while len(racing) > 1 and images < self.probing.training_images:
            images *= 2
            if len(self._round(racing, images=images)) < len(racing):
                self.reasons.append(f"no time was left for a look at {images} images by all")
                break
            racing = self._hopeful(racing, images=2 * images)
        return self._recommended()

    def _round(self, racing: Sequence[Contender], *, images: int) -> list[Contender]:
        """Those that looked at so many images, as far as the time goes."""
        looked = []
        for each in racing:
            if not self.probing.leaves(self.probing.look_cost(each, images=images).seconds):
                continue
            try:
                self.probing.look(each, images=images)
            except TimeIsUp:
                break
            looked.append(each)
        return looked

    def _without_late(self, racing: list[Contender], looked: Sequence[Contender]) -> list[Contender]:
        """Those that had a look; where nobody had, all of them."""
        late = [each for each in racing if looked and each not in looked]
        for each in late:
            each.left = "budget"
        if late:
            names = ", ".join(each.label for each in late)
            self.reasons.append(f"without {names}: no time was left for a look")
        return [each for each in racing if each not in late]

    def _hopeful(self, racing: Sequence[Contender], *, images: int) -> list[Contender]:
        """Those for which a look at so many images pays, best first: at most half of them."""
        found = self.probing.expect(self.contenders)
        place = {id(each): index for index, each in enumerate(self.contenders)}
        best, *others = sorted(self._affordable(racing), key=lambda each: -each.expected.accuracy)
        hopes = [found.gain(place[id(each)], over=place[id(best)], images=images) for each in others]
        keep = _kept(len(racing))
        kept = [each for each, hope in zip(others, hopes, strict=True) if hope >= HARDLY_BETTER][: keep - 1]
        for each in others:
            if each not in kept:
                each.left = "probe"
        return [best, *kept]

    def _affordable(self, racing: Sequence[Contender]) -> list[Contender]:
        """Without those whose training would take more than is left; the fastest one always stays."""
        limit, whole = self._limit, {id(each): self._fit_seconds(each) for each in racing}
        kept = [each for each in racing if limit is None or whole[id(each)] <= limit]
        kept = kept or [min(racing, key=lambda each: whole[id(each)])]
        for each in racing:
            if each not in kept:
                each.left = "budget"
                self.reasons.append(
                    f"{each.label} is left out: all images would take {human_seconds(whole[id(each)])}"
                )
        return kept

    @property
    def _limit(self) -> float | None:
        """Seconds that the training may still take."""
        return None if self.seconds is None else CAREFUL * self.seconds - self.probing.elapsed

    def _fit_seconds(self, contender: Contender) -> float:
        """Of the training with this backbone; endless where it cannot be trained so."""
        with suppress(OptionError, MissingExtra):
            return self.probing.fit_cost(contender).seconds
        return float("inf")

    def _recommended(self) -> tuple[Contender, str]:
        """The best of those that were looked at; where there was no time for any look, of all."""
        able = [each for each in self.contenders if each.left not in ("budget", "dominated")]
        seconds = [self._fit_seconds(each) for each in able]
        expected = [each.expected for each in able]
        index = recommend([each.accuracy for each in expected], seconds, limit=self._limit)
        chosen = able[index]
        for each in able:
            each.left = "" if each is chosen else "probe"
        reason = why([each.label for each in able], expected, seconds, chosen=index)
        return chosen, f"backbone {chosen.label}: {reason}; {expected[index].basis}"


def _dropped(chosen: Contender, contenders: Sequence[Contender]) -> list[str]:
    """Who was left behind after which look, and what the chosen one had on the same images."""
    rounds: dict[int, list[tuple[str, float]]] = {}
    for each in contenders:
        if each.left == "probe" and each.probe is not None:
            rounds.setdefault(each.probe.images, []).append((each.label, each.probe.loo_accuracy))
    found = []
    for images, behind in sorted(rounds.items()):
        own = next((look.loo_accuracy for look in chosen.looks if look.images == images), None)
        against = "" if own is None else f", where it had {own:.1%}"
        behind.sort(key=lambda pair: -pair[1])
        others = ", ".join(f"{label} {accuracy:.1%}" for label, accuracy in behind)
        found.append(f"left after a look at {images} images{against}: {others}")
    return found
