"""What can be asked of each experiment: its parameters, its two sizes, how long it takes, what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headstart.errors import OptionError
from headstart.web.plots import Value

BOUND = 180.0
"""Seconds on the clock after which an experiment is ended without a result.

Each takes half a minute or less on a quiet core; this leaves room for a slow one beside other work.
"""

SIZES = ("small", "normal")

Told = Callable[..., object]
"""Called with (phase, done, total); what it raises ends the experiment."""


@dataclass(frozen=True)
class Parameter:
    """A value that a learner may set.

    Attributes:
        name: As in the lesson's controls.
        meaning: For people.
        small: The value at the smallest size, which takes seconds.
        normal: The value otherwise.
        choices: The values there are, or empty for a number or a free text.
        minimum: Of a number.
        maximum: Of a number.
    """

    name: str
    meaning: str
    small: Value
    normal: Value
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None

    @property
    def names_network(self) -> bool:
        """Whether it is a free text: the name of a backbone, or a file of one."""
        return not self.choices and self.minimum is None

    def read(self, value: Any) -> Value:
        """A value that came from a page or a command line, checked; whole numbers may be text.

        Raises:
            OptionError: it cannot be.
        """
        if self.choices:
            if value not in self.choices:
                raise OptionError(f"{self.name} {value!r}: expected one of {', '.join(self.choices)}")
            return str(value)
        if self.minimum is None or self.maximum is None:
            return str(value)
        try:
            number = int(float(value))
            whole = number == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole or not self.minimum <= number <= self.maximum:
            raise OptionError(
                f"{self.name} {value!r}: expected a whole number from {self.minimum} to {self.maximum}"
            )
        return number


@dataclass(frozen=True)
class Declaration:
    """One experiment.

    Attributes:
        name: As the lesson's pack has it.
        shows: What one will see, in a line.
        function: "module:function" below this package.
        parameters: What can be set.
        small_seconds: What the smallest size took on two quiet cores, measured once.
        normal_seconds: Likewise the normal size.
        needs: The extra that must be installed, or empty.
        images: Whether it uses images, so that it can run on the learner's own.
    """

    name: str
    shows: str
    function: str
    parameters: tuple[Parameter, ...]
    small_seconds: float
    normal_seconds: float
    needs: str = "torch"
    images: bool = True

    def values(self, size: str) -> dict[str, Value]:
        """The declared value of every parameter at a size."""
        return {parameter.name: getattr(parameter, size) for parameter in self.parameters}

    def read(self, given: Mapping[str, Any] | None, *, size: str) -> dict[str, Value]:
        """Every parameter with its value: what was given, checked, else what is declared.

        Raises:
            OptionError: an unknown parameter or size, or a value that cannot be.
        """
        if size not in SIZES:
            raise OptionError(f"size {size!r}: expected one of {', '.join(SIZES)}")
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given or {}:
            if name not in known:
                raise OptionError(
                    f"experiment {self.name} has no parameter {name!r}; it has {', '.join(known) or 'none'}"
                )
        return self.values(size) | {name: known[name].read(value) for name, value in (given or {}).items()}


def _number(name: str, meaning: str, small: int | None, normal: int | None, low: int, high: int) -> Parameter:
    return Parameter(name, meaning, small, normal, minimum=low, maximum=high)


def _draws(small: int, normal: int) -> Parameter:
    return _number(
        "draws", "how often the images are drawn anew and everything is trained again", small, normal, 1, 10
    )


def _images(small: int, normal: int) -> Parameter:
    return _number("images_per_class", "training images of each class, at most", small, normal, 2, 200)


def _all_images(small: int, normal: int, *, most: int = 200) -> Parameter:
    return _number(
        "images_per_class", "images of each class in all splits together, at most", small, normal, 10, most
    )


def _side(small: int, normal: int) -> Parameter:
    return _number("size", "pixels a side that the network sees", small, normal, 32, 224)


def _epochs(small: int, normal: int) -> Parameter:
    return _number("epochs", "epochs of training", small, normal, 1, 50)


_TABLE = (
    Declaration(
        "smallest-example",
        "The lesson's smallest program, run in a process of its own: what it prints, and its seconds.",
        "programs:smallest_example",
        (_number("images_per_class", "images of each class, all splits together", 20, 60, 10, 400),),
        2.0,
        3.0,
        needs="",
    ),
    Declaration(
        "pretrained-vs-scratch",
        "One network frozen with a new head, trained whole from pre-trained weights, and from random ones.",
        "initial_weights:pretrained_vs_scratch",
        (
            Parameter(
                "start",
                "what the first training starts from; the other starts from random weights",
                "pre-trained weights",
                "pre-trained weights",
                choices=("random weights", "pre-trained weights"),
            ),
            _epochs(3, 6),
            _images(8, 25),
            _side(32, 48),
        ),
        3.0,
        16.0,
    ),
    Declaration(
        "images-needed",
        "Accuracy against the number of training images per class, pre-trained and from scratch.",
        "initial_weights:images_needed",
        (
            _number("images_per_class", "the smallest number of training images of each class", 3, 5, 2, 100),
            _number("most_images_per_class", "the largest number", 10, 40, 2, 200),
            _number("steps", "steps of training from scratch, with any number of images", 30, 100, 10, 2000),
            _draws(1, 3),
            _side(32, 32),
        ),
        2.0,
        22.0,
    ),
    Declaration(
        "five-images-one-epoch",
        "The little program of the challenge, run many times; how often each printed value came up.",
        "programs:five_images_one_epoch",
        (
            _number("runs", "how often the program runs", 60, 200, 1, 1000),
            _number("images", "random images of the program", 5, 5, 1, 20),
            _number("classes", "classes of the program", 10, 10, 2, 100),
            Parameter("backbone", "the frozen network of Headstart's face", "builtin", "mobilenetv2_100"),
            Parameter(
                "face", "which of the two programs", "Headstart", "Headstart", choices=("Headstart", "Keras")
            ),
        ),
        0.5,
        6.0,
        needs="",
        images=False,
    ),
    Declaration(
        "model-choice",
        "Four ways to start, side by side on the same few images: accuracy and seconds of each.",
        "models:model_choice",
        (
            Parameter("backbone", "the small pre-trained network", "builtin", "builtin"),
            Parameter("large", "the very large pre-trained network", "resnet152", "resnet152"),
            Parameter(
                "itself",
                "whether its own time is estimated where its weights are missing",
                "no",
                "yes",
                choices=("no", "yes"),
            ),
            _epochs(1, 4),
            _draws(2, 3),
            _images(8, 25),
            _side(32, 32),
        ),
        4.0,
        33.0,
    ),
    Declaration(
        "freeze-depth",
        "Seconds per epoch and accuracy against the number of frozen stages.",
        "costs:freeze_depth",
        (
            _number(
                "depth", "frozen stages of the middle run; half of them where not set", None, None, 0, 64
            ),
            _number("depths", "how many depths, from none to all", 2, 4, 2, 9),
            _epochs(3, 5),
            _images(10, 25),
            _side(32, 48),
        ),
        3.0,
        20.0,
    ),
    Declaration(
        "accuracy-against-time",
        "Several finished models, accuracy against seconds, and the front that none of them beats.",
        "models:accuracy_against_time",
        (
            Parameter("backbone", "the network of your choice", "builtin", "builtin"),
            Parameter("depth", "how much of it is frozen", "all", "all", choices=("none", "half", "all")),
            _number("views", "renderings of each training image", 1, 1, 1, 4),
            _epochs(3, 10),
            _number("reference_epochs", "epochs of the models that yours is compared with", 3, 5, 1, 50),
            _draws(2, 3),
            _images(10, 25),
            _side(48, 64),
        ),
        6.5,
        35.0,
    ),
    Declaration(
        "one-pass",
        "The same training with the frozen features computed once, and computed again in every epoch.",
        "costs:one_pass",
        (
            Parameter("keep", "whether the features are kept", "yes", "yes", choices=("no", "yes")),
            _epochs(4, 20),
            _images(10, 30),
            _side(64, 96),
        ),
        0.5,
        9.0,
    ),
    Declaration(
        "batchnorm",
        "What happens when frozen BatchNorm layers keep updating their statistics, and when they do not.",
        "frozen:batchnorm",
        (
            _epochs(3, 10),
            _number("batch_size", "images per step", 4, 4, 2, 64),
            _images(10, 25),
            _side(48, 64),
        ),
        9.0,
        20.0,
    ),
    Declaration(
        "gradients-way",
        "What one training step costs: forward alone, and with nothing, the first or the last half frozen.",
        "costs:gradients_way",
        (
            _number("repeats", "steps of each kind", 9, 25, 3, 200),
            _number("batch_size", "images per step", 8, 16, 2, 64),
            _side(64, 96),
        ),
        1.0,
        8.0,
        images=False,
    ),
    Declaration(
        "wrong-preparation",
        "One classifier, asked about the same images: prepared as it expects, and in three other ways.",
        "frozen:wrong_preparation",
        (_images(10, 25), _side(64, 64)),
        1.0,
        2.0,
    ),
    Declaration(
        "taps",
        "Accuracy of the same head on the pooled output of each stage.",
        "layers:taps",
        (_images(12, 30), _side(64, 64)),
        0.5,
        1.0,
        needs="",
    ),
    Declaration(
        "calibration",
        "How often the classifier was right at each level of confidence, before and after calibration.",
        "layers:calibration",
        (
            _number("epochs", "epochs of training", 60, 100, 1, 200),
            _images(8, 15),
            _number("all_images_per_class", "images of each class in all splits together", 80, 180, 10, 400),
            _side(48, 64),
        ),
        0.6,
        1.2,
        needs="",
    ),
    Declaration(
        "leaked-mark",
        "Pictures with a mark of their class in the corner: accuracy with the mark, and without it.",
        "trust:leaked_mark",
        (
            Parameter(
                "training",
                "the pictures that your classifier is trained on",
                "as they came",
                "as they came",
                choices=("as they came", "corner covered"),
            ),
            _all_images(30, 60),
            _side(48, 64),
        ),
        0.3,
        0.7,
        needs="",
    ),
    Declaration(
        "copies",
        "Several pictures of each thing, split by file and by photograph; and the same with random labels.",
        "trust:copies",
        (
            Parameter(
                "split",
                "what goes into the test as a whole",
                "by file",
                "by file",
                choices=("by file", "by photograph"),
            ),
            _number("test_percent", "percent of the pictures that are for testing", 30, 30, 5, 60),
            _number("copies", "pictures of each photograph", 3, 5, 2, 6),
            _all_images(20, 40, most=100),
            _side(48, 64),
        ),
        0.3,
        1.2,
        needs="",
    ),
    Declaration(
        "few-test-images",
        "One classifier, tested many times on few and on many images; and the best of ten by the few.",
        "trust:few_test_images",
        (
            _number("few", "test images of a small test", 25, 25, 5, 400),
            _number("many", "test images of a large test", 100, 400, 5, 2000),
            _number("draws", "tests of each size", 200, 1000, 20, 5000),
            _all_images(40, 120),
            _side(48, 64),
        ),
        0.3,
        0.5,
        needs="",
    ),
    Declaration(
        "imbalance",
        "One class against nine times as many images of the others: accuracy, and what it does not say.",
        "trust:imbalance",
        (
            _number("weight", "how much each image of the rare class weighs in training", 9, 9, 1, 50),
            _all_images(40, 120),
            _side(48, 64),
        ),
        0.2,
        0.5,
        needs="",
    ),
)

DECLARED: dict[str, Declaration] = {declaration.name: declaration for declaration in _TABLE}


def declaration(name: str) -> Declaration:
    """The experiment of that name.

    Raises:
        OptionError: there is none.
    """
    if name not in DECLARED:
        raise OptionError(f"no experiment {name!r}; there are {', '.join(DECLARED)}")
    return DECLARED[name]
