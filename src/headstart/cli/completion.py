"""What a shell offers behind the tabulator key; imported only while it asks."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from headstart.runs import HEADS, LAYERS, RunStore


def _backbones() -> Iterable[str]:
    from headstart.backbones import available

    return [*(info.name for info in available()), "auto"]


def _formats() -> Iterable[str]:
    from headstart.exports.formats import FORMATS

    return FORMATS


def _runs() -> Iterable[str]:
    return [each.id for each in RunStore().entries()]


def _tasks() -> Iterable[str]:
    from headstart.heads import TASKS

    return TASKS


_WORDS: dict[str, Callable[[], Iterable[str]]] = {
    "backbone": _backbones,
    "backbones": _backbones,
    "class_weights": lambda: ("balanced",),
    "freeze": lambda: ("all", "none", "auto"),
    "head": lambda: HEADS,
    "heads": lambda: HEADS,
    "layers": lambda: LAYERS,
    "near_duplicates": lambda: ("group", "ignore"),
    "precision": lambda: ("auto", "bf16", "f32"),
    "runtime": lambda: ("auto", "openvino", "torch"),
    "sort": lambda: ("created", "accuracy", "seconds"),
    "task": _tasks,
    "to": _formats,
    "track": lambda: ("mlflow", "tensorboard"),
    "views": lambda: ("1", "flip"),
}
"""By the name of an option's parameter."""


def complete(command: click.Command) -> None:
    """Have every parameter that takes any text offer its words, runs or files."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            setattr(parameter, "shell_complete", _Offer(parameter))  # noqa: B010 (mypy: a method)
    for each in getattr(command, "commands", {}).values():
        complete(each)


class _Offer:
    """The words that begin so, also behind a comma; where there are none, what lies in the folder."""

    def __init__(self, parameter: click.Parameter) -> None:
        self._words = _WORDS.get(parameter.name or "", tuple)
        if isinstance(parameter, click.Argument) and "RUN" in str(parameter.metavar):
            self._words = _runs

    def __call__(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        *before, last = incomplete.split(",")
        if not last and self._words is _runs:  # a folder is typed as often
            return [CompletionItem(incomplete, type="file")]
        found = [",".join([*before, word]) for word in self._words() if word.startswith(last)]
        return [CompletionItem(word) for word in found] or [CompletionItem(incomplete, type="file")]
