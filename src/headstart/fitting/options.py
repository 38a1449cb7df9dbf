"""What a fit is asked for: checked, and turned into a request once the data and the network are known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.building import require_timm
from headstart.choice import BackboneChoice, Outlook, choose_backbone
from headstart.dataset import Dataset, check_shares
from headstart.errors import OptionError
from headstart.features import Progress, Wanted
from headstart.fitting.foresight import Request
from headstart.grouping import check_near_duplicates
from headstart.images import parse_views
from headstart.plans.candidates import sized
from headstart.plans.jobs import check_training, epochs_for
from headstart.runs import RunConfig
from headstart.runtimes import Runtime

HEADS = ("ridge", "softmax")
TAPS = ("auto", "last", "all")

_CHOICE_SHARE = 0.5
"""Of a budget's remaining seconds, what choosing a backbone may take; the winner's features stay."""


@dataclass(frozen=True)
class Options:
    """The arguments of `headstart.fit` that decide what is trained; see there."""

    backbone: str | Path
    size: int | None
    freeze: int | str
    head: str
    taps: str
    views: int | str
    epochs: int | None
    batch_size: int
    learning_rate: float | None
    class_weights: str | None
    scratch: bool
    candidates: Sequence[str] | None
    architecture: str | None
    validation: float
    test: float
    near_duplicates: str
    groups: str | None
    seed: int

    def check(self) -> None:
        """Refuse what cannot work on any data.

        Raises:
            OptionError: a value that cannot be, or two that exclude each other.
        """
        for option, value, known in (
            ("head", self.head, HEADS),
            ("taps", self.taps, TAPS),
            ("class_weights", self.class_weights, (None, "balanced")),
        ):
            if value not in known:
                raise OptionError(f"{option}={value!r}: expected one of {', '.join(map(str, known))}")
        if self.scratch and self.chooses:
            raise OptionError("scratch and backbone='auto' exclude each other: name the network to train")
        if self.scratch and self.freeze not in ("all", "none", 0, "0"):
            raise OptionError(
                f"scratch trains every stage from random weights, so freeze={self.freeze!r} cannot be; "
                "drop one"
            )
        check_training(batch_size=self.batch_size, learning_rate=self.learning_rate)
        if self.seed < 0:
            raise OptionError(f"seed={self.seed}: expected 0 or more")
        check_shares(validation=self.validation, test=self.test)
        check_near_duplicates(self.near_duplicates)

    @property
    def chooses(self) -> bool:
        """Whether the backbone is to be chosen."""
        return str(self.backbone) == "auto"

    @property
    def reads_taps(self) -> bool:
        """Whether the head reads taps, where everything is frozen."""
        return self.head == "ridge" and self.taps != "last"

    def choose(
        self,
        dataset: Dataset,
        *,
        runtime: Runtime,
        seconds: float | None,
        expect: Callable[[Outlook], None],
        progress: Progress | None,
    ) -> BackboneChoice:
        """The backbone that suits the images, among the candidates; ``seconds`` are left of the budget."""
        return choose_backbone(
            dataset,
            runtime=runtime,
            candidates=sized(self.candidates, size=self.size),
            taps=self.taps if self.reads_taps and self.freeze in ("all", "auto") else "last",
            views=parse_views(self.views),
            validation=self.validation,
            test=self.test,
            near_duplicates=self.near_duplicates,
            class_weights=self.class_weights,
            allowance=None if seconds is None else _CHOICE_SHARE * seconds,
            progress=progress,
            expect=expect,
        )

    def load(self) -> Backbone:
        """The backbone that was named."""
        return load_backbone(
            self.backbone,
            size=self.size,
            architecture=self.architecture,
            pretrained=not self.scratch,
            seed=self.seed,
        )

    def requests(self, dataset: Dataset, found: Outlook, *, runtime: Runtime) -> list[Request]:
        """The fits of those networks among which one will be chosen, as far as they can be.

        Raises:
            OptionError: none of them can be.
        """
        requests, refusal = [], None
        for candidate, network in found.candidates:
            try:
                requests.append(self.request(dataset, network, name=candidate.name, runtime=runtime))
            except OptionError as error:
                refusal = error
        if refusal is not None and not requests:
            raise refusal
        return requests

    def request(self, dataset: Dataset, network: Backbone, *, name: str, runtime: Runtime) -> Request:
        """The fit of this network on these images.

        Raises:
            OptionError: the network has no such depth, or its stages cannot be thawed.
            MissingExtra: stages are to be thawed, and what trains them is not installed.
        """
        stages = len(network.stages)
        depth = 0 if self.scratch else network.depth("all" if self.freeze == "auto" else self.freeze)
        if depth < stages and network.recipe is None:
            raise OptionError(
                f"freeze={self.freeze}: the stages of backbone {network.name} are a Keras model's and stay "
                "frozen here; take freeze=all, or thaw them in Keras and train with headstart.keras.fit"
            )
        if depth < stages:
            require_timm(f"freeze={self.freeze}: training stages of {network.name}")
        wanted = Wanted(
            depth=depth,
            views=parse_views(self.views),
            pooled=not self.scratch,
            taps=self.reads_taps and depth == stages,
        )
        config = RunConfig(
            data=dataset.name,
            backbone=name,
            size=network.preprocess.size,
            depth=depth,
            stages=stages,
            head=self.head,
            taps=None,
            views=tuple(view.name for view in wanted.views),
            pretrained=not self.scratch,
            architecture=self.architecture,
            runtime=runtime.name,
            precision=runtime.precision,
            epochs=epochs_for(self.epochs, head=self.head, thawed=depth < stages, scratch=self.scratch),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            class_weights=self.class_weights,
            validation=self.validation,
            test=self.test,
            seed=self.seed,
            near_duplicates=self.near_duplicates,
            groups=self.groups,
        )
        return Request(dataset, network, wanted, runtime, config, self.taps)

    @property
    def deeper_epochs(self) -> int | None:
        """Epochs of the deeper training that ``freeze="auto"`` tries; None where nothing deeper is asked."""
        if self.freeze != "auto":
            return None
        return epochs_for(self.epochs, head=self.head, thawed=True, scratch=False)

    def idle(self, config: RunConfig) -> tuple[str, ...]:
        """A note on each option that has no effect on this job; nothing is dropped in silence."""
        notes = []
        if config.epochs is None and self.freeze != "auto":
            notes = [
                f"{option}={value} has no effect on a ridge head, which is solved at once; "
                "take --head softmax"
                for option, value in (("epochs", self.epochs), ("learning_rate", self.learning_rate))
                if value is not None
            ]
        if self.candidates and not self.chooses:
            notes.append("candidates have no effect on a backbone that is named; take --backbone auto")
        frozen = config.depth == config.stages
        if self.taps == "all" and not (frozen and self.head == "ridge"):
            who = "a softmax head" if frozen else "a network with thawed stages"
            notes.append(f"taps=all has no effect on {who}, which reads the last layer; take --head ridge")
        return tuple(notes)
