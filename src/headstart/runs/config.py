"""The one description of a training: asked for, planned, compared, recorded."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from headstart.data.preprocess import parse_views
from headstart.errors import OptionError
from headstart.files import record

HEADS = ("ridge", "softmax")
LAYERS = ("auto", "last", "all")

DEFAULT_BACKBONE = "efficientnet_lite0"
"""What the backbone "default" stands for; "builtin" where the package with its weights is not installed."""

_EPOCHS = {"softmax": 30, "tail": 15, "scratch": 40}
"""Where nobody asks for another number."""


@dataclass(frozen=True)
class Method:
    """One way to train: what the candidates of a comparison differ in."""

    #: A name of `headstart backbones` or of timm's, a file, hf:OWNER/NAME; "auto" to choose one; "default"
    #: until known: `DEFAULT_BACKBONE`.
    backbone: str = "default"
    size: int | None = None  #: pixels a side that the backbone sees; None until known: the backbone's own
    depth: int = 0  #: frozen stages, counted from the input
    stages: int = 0  #: how many the network has; depth == stages freezes all; 0 where nobody knows
    #: "ridge" (closed form) or "softmax" (a dense layer trained with Adam); "auto" as asked for, until known.
    head: str = "ridge"
    #: What a ridge head reads: "auto" (by leave-one-out error), "last", "all", or names of layers; once
    #: trained, the names of what it reads, None for the last vector alone.
    layers: str | tuple[str, ...] | None = "auto"
    views: tuple[str, ...] = ("centre",)  #: renderings of each training image
    pretrained: bool = True  #: False: from random weights, every stage trained
    epochs: int | None = None  #: None: 30 of a softmax head, 15 of fine-tuned stages, 40 from scratch
    architecture: str | None = None  #: of files of weights that do not say: a timm name
    preprocess: str | None = None  #: of .onnx and .keras files that do not say: what their pixels are

    @property
    def fine_tuned(self) -> bool:
        """Whether stages are trained, and not a head alone."""
        return self.depth < self.stages

    @property
    def closed_form(self) -> bool:
        """Whether a ridge head is all that is trained: it is solved at once, without epochs."""
        return not self.fine_tuned and self.head == "ridge"


@dataclass(frozen=True)
class FitConfig(Method):
    """Everything that decides a training's result, so that it can be repeated. `replace` changes it.

    `from_options` makes it of what a user asks for. What data, network and machine decide, those who know
    them put in; `settled` completes it, and a run records it so.
    """

    batch_size: int = 32  #: images per step of whatever is trained in epochs
    learning_rate: float | None = None  #: None: 0.001, and 0.1 from scratch
    class_weights: str | None = None  #: "balanced" weighs classes by the inverse of their share
    runtime: str = "auto"  #: "openvino" or "torch"; "auto" until known
    precision: str = "auto"  #: "bf16" or "f32"; "auto" until known
    validation: float = 0.15  #: share of each class held out to choose on, where the data does not say
    test: float = 0.15  #: share of each class that is read once, at the end, where the data does not say
    #: "group" keeps pictures that are the same but for size or compression on one side of the split, as long
    #: as a group is no more than a tenth of a class; "ignore" splits each by itself.
    near_duplicates: str = "group"
    #: A column of the table (camera, patient, day), a table of files and groups, or a pattern of file names
    #: (``{group}_*.jpg``): images of one group stay on one side, and near-duplicates are not looked for.
    groups: str | None = None
    #: Costs of mistakes, a CSV of true by called classes: called is the class of the least expected cost.
    costs: str | None = None
    #: Shares of the classes where the classifier will be used: a CSV of classes and shares, or "uniform".
    priors: str | None = None
    weights_column: str | None = None  #: of the table: images' weights in training, numbers above zero
    folds: int | None = None  #: of a cross-validation over all images, beside the split; None for none
    seed: int = 0  #: random seed
    #: "single-label", "multi-label" or "regression"; "auto" as asked for, until the labels are known.
    task: str = "single-label"
    data: str = ""  #: where the labelled images came from; empty until known
    #: As asked for: a number of stages, a stage's name, "none", "all"; "auto" goes deeper than the head where
    #: validation says so. `depth` is what it means for the network.
    freeze: int | str = "all"
    #: What backbone "auto" chooses from: names and files, each with @SIZE for another size; None for all that
    #: are on this machine.
    candidates: tuple[str, ...] | None = None

    @classmethod
    def from_options(cls, *, scratch: bool = False, views: int | str = 1, **options: Any) -> "FitConfig":
        """What the keywords of `headstart.fit` ask for; those that are left out have their defaults.

        Raises:
            OptionError: such views cannot be.
            TypeError: a keyword that `fit` does not have.
        """
        refuse_others(options, known=_OPTIONS)
        for several in ("candidates", "layers"):
            if not isinstance(options.get(several), str | None):
                options[several] = tuple(options[several])
        name, size = split_size(options.get("backbone", cls.backbone))
        asked = options.get("size")
        if size is not None and asked not in (None, size):
            raise OptionError(f"backbone {name}@{size} and size={asked}: give one size")
        options["backbone"], options["size"] = name, size or asked
        options["head"] = options.get("head") or "auto"
        names = tuple(view.name for view in parse_views(views))
        options["task"] = options.get("task") or "auto"
        return cls(**options, pretrained=not scratch, views=names)

    def checked(self) -> "FitConfig":
        """The same, where it can work on some data.

        Raises:
            OptionError: a value that cannot be, or two that exclude each other.
        """
        # Only who trains needs these, and they take longer to import than a list of runs takes to show.
        from headstart.data.splits import check_near_duplicates, check_shares

        for option, value, known in (
            ("head", self.head, ("auto", *HEADS)),
            ("layers", self.layers if isinstance(self.layers, str) else "last", LAYERS),
            ("class_weights", self.class_weights, (None, "balanced")),
        ):
            if value not in known:
                raise OptionError(f"{option}={value!r}: expected one of {', '.join(map(str, known))}")
        if self.chooses and not self.pretrained:
            raise OptionError("scratch and backbone='auto' exclude each other: name the network to train")
        if not self.pretrained and self.freeze not in ("all", "none", 0, "0"):
            raise OptionError(
                f"scratch trains every stage from random weights, so freeze={self.freeze!r} cannot be; "
                "drop one"
            )
        if self.epochs is not None and self.epochs < 1:
            raise OptionError(f"epochs={self.epochs}: expected 1 or more")
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size}: expected 1 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise OptionError(f"learning_rate={self.learning_rate}: expected a number above zero")
        if self.folds is not None and self.folds < 2:
            raise OptionError(f"folds={self.folds}: expected 2 or more")
        if self.folds and not (self.head != "softmax" and self.freeze == "all" and self.pretrained):
            raise OptionError(
                f"folds={self.folds} is for a ridge head on a network that is frozen whole, which is solved "
                "once more for each fold; drop it, or take --head ridge --freeze all"
            )
        if (self.costs or self.priors) and self.freeze == "auto":
            raise OptionError(
                "costs and priors do not go with freeze='auto', which judges by the probabilities of the "
                "images as they come; give a depth"
            )
        if self.weights_column and (self.freeze == "auto" or not self.pretrained):
            raise OptionError("weights_column weighs images for a head alone, on frozen stages; drop it")
        if self.seed < 0:
            raise OptionError(f"seed={self.seed}: expected 0 or more")
        check_shares(validation=self.validation, test=self.test)
        check_near_duplicates(self.near_duplicates)
        return self

    def settled(self) -> "FitConfig":
        """The same with the epochs that will be trained, and without what a training of its kind ignores."""
        head = "ridge" if self.head == "auto" else self.head
        kind = "scratch" if not self.pretrained else "tail" if self.fine_tuned else head
        layers = self.layers if kind == "ridge" and self.layers != "last" else None
        epochs = None if kind == "ridge" else self._epochs(kind)
        return replace(self, head=head, layers=layers, epochs=epochs)

    def _epochs(self, kind: str) -> int:
        return _EPOCHS[kind] if self.epochs is None else self.epochs

    @property
    def chooses(self) -> bool:
        """Whether the backbone is to be chosen."""
        return self.backbone == "auto"

    @property
    def deeper_epochs(self) -> int | None:
        """Epochs of the deeper training that ``freeze="auto"`` tries; None where nothing deeper is asked."""
        return self._epochs("tail") if self.freeze == "auto" else None

    def idle(self, settled: "FitConfig") -> tuple[str, ...]:
        """A note on each option that has no effect on the job it became; nothing is dropped in silence.

        Raises:
            OptionError: a ridge head was asked for, and what is trained ends in another one.
        """
        if self.head == "ridge" and (settled.fine_tuned or not settled.pretrained):
            how = f"freeze={self.freeze}" if settled.pretrained else "scratch"
            raise OptionError(
                f"head=ridge has no effect with {how}: retrained stages end in a softmax head; leave "
                "--head out, or take --freeze all"
            )
        notes = []
        if settled.epochs is None and self.freeze != "auto":
            notes = [
                f"{option}={value} has no effect on a ridge head, which is solved at once; "
                "take --head softmax"
                for option, value in (("epochs", self.epochs), ("learning_rate", self.learning_rate))
                if value is not None
            ]
        if self.candidates and not self.chooses:
            notes.append("candidates have no effect on a backbone that is named; take --backbone auto")
        if self.layers == "all" and not settled.closed_form:
            who = "a network with fine-tuned stages" if settled.fine_tuned else "a softmax head"
            notes.append(f"layers=all has no effect on {who}, which reads the last layer; take --head ridge")
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """What a run records, as plain data for JSON."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "FitConfig":
        """The inverse of `to_dict`; unknown keys of later versions are left aside.

        Raises:
            Mistyped: a field is missing, or is not what it should be.
        """
        checked = _RECORDED(todays_names(data))
        return cls(**{each.name: checked[each.name] for each in fields(cls) if each.name in checked})


def split_size(backbone: str | Path) -> tuple[str, int | None]:
    """The name and the size of ``builtin@160``, as which a backbone may be named anywhere."""
    found = re.fullmatch(r"(.+)@(\d{1,5})", str(backbone).strip())
    return (found[1], int(found[2])) if found else (str(backbone), None)


def todays_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version wrote, which called the layers that a head reads taps."""
    return {"layers" if name == "taps" else name: value for name, value in data.items()}


def refuse_others(options: Mapping[str, Any], *, known: Collection[str]) -> None:
    """What Python does where a function has no such parameter.

    Raises:
        TypeError: an option is not among the known ones.
    """
    for name in options:
        if name == "taps":
            raise TypeError("taps is called layers now")
        if name not in known:
            raise TypeError(f"unexpected keyword argument {name!r}; known are {', '.join(sorted(known))}")


_OPTIONS = {each.name for each in fields(FitConfig)} - {"data", "depth", "stages", "pretrained"} | {"scratch"}
"""What `fit` takes by its own name."""


_RECORDED = record(
    {**get_type_hints(FitConfig), "size": int, "layers": tuple[str, ...] | None},
    optional=(
        "near_duplicates",
        "groups",
        "costs",
        "priors",
        "weights_column",
        "folds",
        "freeze",
        "candidates",
        "task",
    ),
)
"""What others can rely on; runs of earlier versions lack some of it."""
