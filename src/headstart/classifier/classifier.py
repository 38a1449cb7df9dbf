"""`Classifier`: predicts, saves and loads; `check_parity` compares a saved one with its training."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.classifier.predictions import USUAL, Prediction, Predictions, PredictOptions
from headstart.data.dataset import Sample, Skipped, content_hash, list_images
from headstart.data.images import (
    ImageFacts,
    Preprocess,
    decode,
    load_pixels,
    shortest_side_needed,
)
from headstart.data.sources import reads
from headstart.errors import DatasetError, ImageError, OptionError, ParityError, RunError, printable
from headstart.files import Mistyped, Unreadable, checker, read_json, write_whole
from headstart.heads import MULTI_LABEL, REGRESSION, SINGLE_LABEL, least_probability
from headstart.heads.decisions import decide
from headstart.heads.metrics import USUAL_COVERAGE, largest_error
from headstart.heads.threads import decoding_threads
from headstart.runs import CLASSIFIER_FILE, RunStore, todays_names

if TYPE_CHECKING:
    from headstart.backbones.runtimes.protocol import FrozenPart

ANSWERS = ("probabilities", "value")
"""What a saved model calls its answer: of classes and labels, and of a number."""

OUTPUTS = (ANSWERS[0], "familiarity")
"""What a saved model gives; those of earlier versions and of Keras models give the first alone."""

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.safetensors"

_BATCH = 32
_WINDOW = 8 * _BATCH
"""Images decoded before they are run: bounds memory."""

_PARITY = {"f32": 2e-3, "bf16": 6e-2}
"""Largest difference of a probability that a reloaded model may show. bf16 keeps 8 bits of a value, and
a head that multiplies a thousand of them turns the last bit into a few hundredths of a probability."""

_PARITY_OF_NUMBERS = {"f32": 2e-2, "bf16": 6e-2}
"""Likewise of a predicted number, in the spread of those that were trained on. Cached features have 16 bits,
and images that share a background share its rounding, which weights of a thousand columns add up."""

_UNDECIDED = 4
"""Times as much that one image may show where features were computed in bf16: one between two classes."""

_ROUNDING = 0.05
"""By which the probabilities of one image may miss 1: a sum of bf16 values."""

_Seen = TypeVar("_Seen")


@dataclass(frozen=True)
class InputImage:
    """One image as the network sees it, and what is known of its file; ``content`` is its `content_hash`."""

    pixels: NDArray[np.uint8]
    facts: ImageFacts
    content: bytes


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        classes: labels, in the order of the probabilities.
        preprocess: how an image becomes the pixels that the network sees.
        model: the ONNX file: ``pixels`` uint8 [N, S, S, 3] in, ``probabilities`` float32 [N, C] out, and
            most often ``familiarity`` float32 [N].
        precision: "bf16" or "f32", what the runtime is asked to compute in.
        about: backbone, depth, head, layers: facts for people.
        right: what held-out images were given for their right label, ascending; see `least_probability`.
        task: "single-label", "multi-label" or "regression".
        thresholds: multi-label: the probability from which each label is called.
        errors: regression: absolute errors of left-out images, ascending; see `largest_error`.
        costs: of mistakes, by true and called class: called is the class of the least expected cost. None for
            the likeliest.
    """

    classes: tuple[str, ...]
    preprocess: Preprocess
    model: Path
    precision: str = "f32"
    about: dict[str, Any] = field(default_factory=dict)
    right: tuple[float, ...] = ()
    task: str = SINGLE_LABEL
    thresholds: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    costs: tuple[tuple[float, ...], ...] | None = None

    def __repr__(self) -> str:
        names = ", ".join(map(printable, self.classes[:5])) + (", …" if len(self.classes) > 5 else "")
        called = (
            f"{self.task}, {len(self.classes)} classes: {names}" if self.task != REGRESSION else self.task
        )
        return f"Classifier({called}; {self.about.get('backbone', 'network')} at {self.preprocess.size} px)"

    def predict(
        self, images: Any, *, top: int = 5, reject: float | None = None, coverage: float | None = None
    ) -> Predictions:
        """Label images; the answers are a list, of which ``to_frame()`` makes a table of pandas.

        Args:
            images: a file, a folder, a sequence of those, or pixels: uint8 [H, W], [H, W, 3], [N, H, W, 3] or
                a sequence of such images.
            top: see `PredictOptions`.
            reject: likewise.
            coverage: likewise.

        Raises:
            ImageError: an image cannot be read; `predict_each` reports instead of raising.
            DatasetError: a path does not exist, or is none.
            OptionError: the classifier cannot answer what is asked, see `refuse`.
        """
        results = list(self.predict_each(_samples(images), PredictOptions(top, reject, coverage)))
        for result in results:
            if isinstance(result, Skipped):
                raise ImageError(f"{result.name}: {result.reason}")
        return Predictions(result for result in results if isinstance(result, Prediction))

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Probabilities of images as `predict` takes them, float32 [N, C], in the order of ``classes``.

        Raises:
            ImageError: an image cannot be read.
            DatasetError: a path does not exist, or is none.
            OptionError: it predicts a number.
        """
        if self.task == REGRESSION:
            raise OptionError("regression: there are no probabilities of a number; take predict")
        rows = [np.zeros((0, len(self.classes)), np.float32)]
        for sample, found in self._answered(_samples(images)):
            if isinstance(found, str):
                raise ImageError(f"{sample.name}: {found}")
            rows.append(found[None, :-1])
        return np.concatenate(rows)

    def features(self, images: Any) -> NDArray[np.float32]:
        """What the head reads of images as `predict` takes them, float32 [N, D].

        Raises:
            ImageError: an image cannot be read.
            DatasetError: a path does not exist, or is none.
            RunError: the model's file is damaged.
        """
        from headstart.backbones.runtimes.model import compile_model
        from headstart.classifier.onnx_graph import SavedGraph

        head = SavedGraph.read(self.model).head
        network = compile_model(
            self.model,
            size=self.preprocess.size,
            batch_size=_BATCH,
            precision=self.precision,
            outputs=self.outputs,
            inner=(head.input[0],),
        )
        samples, rows = _samples(images), []
        for start in range(0, len(samples), _BATCH):
            pixels = self.render(samples[start : start + _BATCH])
            for sample, found in zip(samples[start:], pixels, strict=False):
                if isinstance(found, str):
                    raise ImageError(f"{sample.name}: {found}")
            ((_, answers),) = network.stream([(start, np.stack(pixels))])
            rows.append(answers[head.input[0]])
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def predict_each(
        self, samples: Sequence[Sample], options: PredictOptions = USUAL
    ) -> Iterator[Prediction | Skipped]:
        """Label images in order; one that cannot be read gives its name and the reason; as `predict`."""
        self.refuse(options)
        for sample, found in self._answered(samples):
            if isinstance(found, str):
                yield Skipped(sample.name, found)
            else:
                yield self.prediction(sample.name, found, options)

    def _answered(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, NDArray[np.float32] | str]]:
        """Each sample with its answer, see `answer`, or the reason why it cannot be read."""
        for start in range(0, len(samples), _WINDOW):
            window = samples[start : start + _WINDOW]
            rendered = self.render(window)
            good = [pixels for pixels in rendered if not isinstance(pixels, str)]
            rows = iter(self.answers(np.stack(good)) if good else ())
            for sample, pixels in zip(window, rendered, strict=True):
                yield sample, pixels if isinstance(pixels, str) else next(rows)

    @property
    def tells_unknown(self) -> bool:
        """Whether the model says how familiar an image is."""
        return bool(self.about.get("familiarity"))

    @cached_property
    def cost_matrix(self) -> NDArray[np.float64] | None:
        """The costs as float64 [C, C], see `decide`."""
        return None if self.costs is None else np.asarray(self.costs, dtype=np.float64)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the model gives."""
        answer = ANSWERS[self.task == REGRESSION]
        return (answer, *OUTPUTS[1:]) if self.tells_unknown else (answer,)

    def refuse(self, options: PredictOptions) -> None:
        """Raise OptionError where a number is none, or where too few images were held out for the answer."""
        if options.top < 1:
            raise OptionError(f"top={options.top}: expected 1 or more")
        for name, share, usual in (("reject", options.reject, 0.05), ("coverage", options.coverage, 0.9)):
            if share is not None and not 0 < share < 1:
                raise OptionError(f"{name}={share:g}: expected a share between 0 and 1, such as {usual:g}")
        lacking = ""
        if options.reject is not None and not self.tells_unknown:
            lacking = "tell unknown images"
        if options.coverage is not None and self.task == MULTI_LABEL:
            raise OptionError(
                "multi-label: a coverage is not done yet; each label is called from its own threshold"
            )
        if options.coverage is not None and self._least(options.coverage) is None:
            lacking = f"promise a coverage of {options.coverage:g}"
        if lacking:
            raise OptionError(
                f"{self.model.parent}: the classifier cannot {lacking}: an earlier version saved it, or "
                "too few images were held out; fit again, with --validation 0.2"
            )

    def _least(self, coverage: float) -> float | None:
        """The least probability of a label that is given, or half the width of a number's interval."""
        if self.task == REGRESSION:
            return largest_error(self.errors, coverage=coverage)
        return least_probability(self.right, coverage=coverage)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Rendered images, uint8 [N, S, S, 3], to probabilities, float32 [N, C], or numbers, [N, 1]."""
        return self.answers(pixels)[:, :-1]

    def answers(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Rendered images, uint8 [N, S, S, 3], to what `answer` makes of the network's outputs."""
        size = 1 if len(pixels) == 1 else _BATCH
        batches = ((i, pixels[i : i + size]) for i in range(0, len(pixels), size))
        parts = [self.answer(found) for _, found in self.compiled(size).stream(batches)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes) + 1), np.float32)

    def answer(self, found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Probabilities and familiarity side by side, float32 [N, C + 1]; NaN where the model is silent.

        Raises:
            RunError: these are no probabilities: the model is damaged, of another run, or somebody else's.
        """
        probabilities = found[self.outputs[0]]
        shape = probabilities.shape
        if len(shape) != 2 or shape[1] != len(self.classes):
            given = shape[1] if len(shape) == 2 else f"an array of shape {list(shape)} instead of"
            raise RunError(
                f"{self.model}: the model gives {given} probabilities for {len(self.classes)} classes: "
                "its files are of different runs; restore the folder"
            )
        if not self._plausible(probabilities):
            raise RunError(f"{self.model}: what the model gives are no probabilities; restore the folder")
        familiarity = found.get("familiarity", np.full(len(probabilities), np.nan, np.float32))
        return np.column_stack([probabilities, familiarity])

    def _plausible(self, found: NDArray[np.float32]) -> bool:
        """Whether these can be the task's answers, [N, C]."""
        if self.task == REGRESSION:
            return bool(np.isfinite(found).all())
        within = (found >= -_ROUNDING).all() and (found <= 1 + _ROUNDING).all()
        return bool(within and (self.task == MULTI_LABEL or (abs(found.sum(1) - 1) <= _ROUNDING).all()))

    def prediction(self, name: str, answer: NDArray[np.float32], options: PredictOptions) -> Prediction:
        """What an answer, float32 [C + 1], says of the image called ``name``."""
        probabilities, familiarity = answer[:-1], round(float(answer[-1]), 4)
        order = np.argsort(-probabilities, kind="stable")
        best = order[: options.top]
        if self.task == REGRESSION:
            said = self._number(name, float(probabilities[0]), options)
        else:
            pairs = tuple((self.classes[i], round(float(probabilities[i]), 6)) for i in best)
            first = int(decide(probabilities[None], self.cost_matrix)[0])
            said = Prediction(name, self.classes[first], round(float(probabilities[first]), 6), pairs)
        if self.task == MULTI_LABEL:
            called = self.called(probabilities[None])[0]
            said = replace(said, labels=tuple(self.classes[i] for i in order if called[i]))
        if self.tells_unknown:
            known = None if options.reject is None else familiarity >= options.reject
            said = replace(said, familiarity=familiarity, known=known)
        if self.task != SINGLE_LABEL:
            return said
        if options.coverage is not None and (least := self._least(options.coverage)) is not None:
            least = min(least, float(probabilities[order[0]]))
            likely = [i for i in order if probabilities[i] >= least or i == first]
            said = replace(said, labels=tuple(self.classes[i] for i in likely))
        return said

    def called(self, found: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which labels probabilities [N, C] call: the likeliest, or all that reach their thresholds."""
        if self.task == REGRESSION:
            return np.zeros(found.shape, bool)
        if self.task == MULTI_LABEL:
            limits = np.array(self.thresholds or [0.5] * len(self.classes))
            return np.asarray(found >= limits)
        return np.asarray(np.arange(len(self.classes)) == decide(found, self.cost_matrix)[:, None])

    @property
    def spread(self) -> float:
        """What differences are measured in: of numbers, their deviation in the training images."""
        return float(self.about.get("spread") or 1.0) if self.task == REGRESSION else 1.0

    def _number(self, name: str, value: float, options: PredictOptions) -> Prediction:
        """The number, and around it an interval that holds the asked share of numbers, or the usual one."""
        error = self._least(options.coverage or USUAL_COVERAGE)
        interval = None if error is None else (_rounded(value - error), _rounded(value + error))
        text = f"{value:.4g}"
        return Prediction(name, text, float("nan"), (), value=_rounded(value), interval=interval)

    def render(self, samples: Sequence[Sample]) -> list[NDArray[np.uint8] | str]:
        """Pixels of each sample, uint8 [S, S, 3], or why there are none."""
        return _in_threads(lambda read: load_pixels(read(), self.preprocess), samples)

    def look(self, samples: Sequence[Sample]) -> list[InputImage | str]:
        """Each sample rendered, with its content's hash and its facts, or why it cannot be."""
        side = shortest_side_needed(self.preprocess)

        def look(read: Callable[[], Any]) -> InputImage:
            data = read()
            image = decode(data, shortest_side=side)
            return InputImage(image.render(self.preprocess), image.facts, content_hash(data))

        return _in_threads(look, samples)

    def compiled(self, batch_size: int) -> "FrozenPart":
        """The network made ready for so many images at once; kept for the next time.

        Raises:
            RunError: the model's file is damaged.
        """
        from headstart.backbones.runtimes.model import compile_model

        if batch_size not in self._compiled:
            try:
                self._compiled[batch_size] = compile_model(
                    self.model,
                    size=self.preprocess.size,
                    batch_size=batch_size,
                    precision=self.precision,
                    outputs=self.outputs,
                )
            except (OSError, RuntimeError) as error:  # what OpenVINO raises for a file that it cannot use
                reason = str(error).strip().splitlines()[-1]
                raise RunError(f"{self.model} is damaged ({reason}); fit again or restore it") from error
        return self._compiled[batch_size]

    @cached_property
    def _compiled(self) -> "dict[int, FrozenPart]":
        return {}

    def save(self, folder: str | Path) -> Path:
        """Write the classifier into ``folder`` (made if need be): `model.onnx` and `classifier.json`."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        if self.model.resolve() != (target / MODEL_FILE).resolve():
            write_whole(target / MODEL_FILE, self.model.read_bytes())
        facts = {
            "format": 1,
            "classes": list(self.classes),
            "preprocess": self.preprocess.to_dict(),
            "precision": self.precision,
            "about": self.about,
            "right": list(self.right),
            **({} if self.task == SINGLE_LABEL else self._of_task()),
            **({} if self.costs is None else {"costs": self.costs}),
        }
        write_whole(target / CLASSIFIER_FILE, json.dumps(facts, indent=1, ensure_ascii=False))
        return target

    def _of_task(self) -> dict[str, Any]:
        """What a task other than one label adds to the facts."""
        return {"task": self.task, "thresholds": list(self.thresholds), "errors": list(self.errors)}


def _rounded(value: float) -> float:
    """To the seven digits of float32."""
    return float(f"{value:.7g}")


def _in_threads(work: Callable[[Callable[[], Any]], _Seen], samples: Sequence[Sample]) -> list[_Seen | str]:
    """What ``work`` makes of what reads each sample, or the reason where it raises ImageError."""

    def told(read: Callable[[], Any]) -> _Seen | str:
        try:
            return work(read)
        except ImageError as error:
            return str(error)

    if len(samples) == 1:
        return [told(samples[0].source.read)]
    with ThreadPoolExecutor(decoding_threads()) as pool:
        return list(pool.map(told, reads([sample.source for sample in samples])))


class _Preprocess(TypedDict):
    size: int
    crop_fraction: float
    interpolation: str
    crop_mode: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class _Facts(TypedDict):
    classes: tuple[str, ...]
    preprocess: _Preprocess
    precision: Literal["f32", "bf16"]
    about: Mapping[str, Any]
    right: NotRequired[tuple[float, ...]]
    task: NotRequired[Literal["single-label", "multi-label", "regression"]]
    thresholds: NotRequired[tuple[float, ...]]
    errors: NotRequired[tuple[float, ...]]
    costs: NotRequired[tuple[tuple[float, ...], ...]]


_FACTS = checker(_Facts)


def load(run: str | Path) -> Classifier:
    """The classifier of a run, given its folder or its id.

    Raises:
        RunError: there is no such run, or its folder is incomplete.
    """
    folder = Path(run)
    if not (folder / CLASSIFIER_FILE).exists():
        folder = RunStore().find(run).path
    try:
        facts = _FACTS(read_json(folder / CLASSIFIER_FILE, below=folder))
        classifier = Classifier(
            classes=facts["classes"],
            preprocess=Preprocess.from_dict(facts["preprocess"]),
            model=folder / MODEL_FILE,
            precision=facts["precision"],
            about=todays_names(facts["about"]),
            right=facts.get("right", ()),
            task=facts.get("task", SINGLE_LABEL),
            thresholds=facts.get("thresholds", ()),
            errors=facts.get("errors", ()),
            costs=_costs(facts),
        )
        if classifier.thresholds and len(classifier.thresholds) != len(classifier.classes):
            raise Mistyped("a threshold for each class in thresholds", facts["thresholds"])
    except (Unreadable, Mistyped, OptionError) as error:
        shown = printable(folder / CLASSIFIER_FILE)
        raise RunError(f"{shown} is missing or damaged ({printable(str(error))}); fit again") from error
    if not classifier.model.is_file():
        raise RunError(f"{classifier.model} is missing; fit again or restore the folder")
    return classifier


def _costs(facts: _Facts) -> tuple[tuple[float, ...], ...] | None:
    """The costs of mistakes, which the file may have from anybody."""
    costs, classes = facts.get("costs"), len(facts["classes"])
    if costs is not None and not (len(costs) == classes and all(len(row) == classes for row in costs)):
        raise Mistyped(f"costs of {classes} x {classes} classes", costs)
    return costs


def _samples(images: Any) -> Sequence[Sample]:
    from headstart.data.dataset import ArraySource

    if isinstance(images, np.ndarray):
        images = list(images[None] if images.ndim in (2, 3) else images)
    elif isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        images = [images]
    items = list(images)
    if items and all(isinstance(item, np.ndarray) for item in items):
        return [Sample(f"array {i}", -1, None, ArraySource(item)) for i, item in enumerate(items)]
    for item in items:
        if not isinstance(item, str | os.PathLike):
            raise DatasetError(
                f"expected paths of images, or pixels as uint8 [H, W, 3], got {type(item).__name__}; of a "
                'Pillow image pass numpy.asarray(image.convert("RGB"))'
            )
    return list_images(items)


def check_parity(
    samples: Sequence[Sample], expected: NDArray[np.float32], *, where: Path, computed: str | None = None
) -> float:
    """Reload the classifier saved in ``where``, predict, and compare with what the training computed.

    Args:
        samples: N images.
        expected: float32 [N, classes], what the training said of them.
        where: the folder.
        computed: the precision in which ``expected`` was computed; None for the classifier's own. The
            coarser of the two decides how much may differ.

    Returns:
        The largest difference of a probability.

    Raises:
        ParityError: it is more than the precision explains.
    """
    if not samples:
        return 0.0
    classifier = load(where)
    pixels = [found for found in classifier.render(samples) if not isinstance(found, str)]
    found = classifier.probabilities(np.stack(pixels))
    by_image = np.abs(found - expected).max(axis=1) / classifier.spread
    parity = _PARITY_OF_NUMBERS if classifier.task == REGRESSION else _PARITY
    allowed = max(parity[classifier.precision], parity[computed or classifier.precision])
    # Rounding in bf16 moves an image that lies between two classes further than others; a fault moves all.
    few = allowed if allowed == parity["f32"] else _UNDECIDED * allowed
    if not (by_image.mean() <= allowed and by_image.max() <= few):
        raise ParityError(
            f"{where}: the saved model's {classifier.outputs[0]} differ by {by_image.max():.3g} from "
            f"training's, {by_image.mean():.3g} on average (at most {few:g}, {allowed:g} on average "
            "expected); please report this"
        )
    return float(by_image.max())
