"""The `headstart` command. Each verb lives in a module of its own and is imported when it is called."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from headstart import __version__
from headstart.errors import HeadstartError, printable, stopped

_VERBS = {
    "sample": "Fetch a public set of photographs.",
    "check": "Find what is wrong with a set of images.",
    "labels": "Write labels for COCO's tools, Label Studio or FiftyOne.",
    "plan": "Predict seconds, disk and memory of trainings.",
    "fit": "Train, evaluate and save a classifier.",
    "evaluate": "Measure a saved classifier on other labelled images.",
    "predict": "Label images with a saved classifier.",
    "embed": "Write a vector of each image from a pre-trained network.",
    "compare": "Compare networks, depths and heads on one split.",
    "report": "Write a run or a comparison as one page.",
    "export": "Write a classifier in another format, checked against the original.",
    "push": "Put a classifier on the Hugging Face hub.",
    "pull": "Bring a classifier from the Hugging Face hub.",
    "serve": "Serve predictions over HTTP.",
    "backbones": "List pre-trained networks, or show one.",
    "runs": "List recorded runs, or show one.",
    "cache": "Show the feature cache, or prune it.",
    "studio": "Open the workbench in the browser.",
    "learn": "Open the lesson in the browser.",
    "class": "Teach a class: join codes, names, a teacher's page.",
    "challenge": "Take the five timed problems of the lesson.",
    "experiment": "Run an experiment of the lesson on this machine.",
    "lesson": "Make, check and move lesson packs.",
    "badge": "Take a badge, or check one offline.",
}

_MODULES = {"class": "classes"}
"""Of verbs that Python keeps for itself."""


class _Unread(Exception):
    """Nobody reads the output any more; not the `BrokenPipeError`, which click makes a failure of."""


@contextmanager
def _told_of_pipes() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _Unread from error


class _Verbs(click.Group):
    """A group that knows its verbs' names and imports a verb only to run it (start-up decides small jobs)."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _told_of_pipes():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _told_of_pipes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"headstart.cli.{_MODULES.get(cmd_name, cmd_name)}").command
        command.name = cmd_name  # each module calls its own `command`; pages show the verb
        if ctx.resilient_parsing:
            from headstart.cli.completion import complete

            complete(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in _VERBS and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], _VERBS, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "headstart --help lists the commands"
            raise click.UsageError(f"no command {printable(args[0])!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headstart")
def cli() -> None:
    """A folder of photographs becomes a trained classifier: offline, in seconds.

    \b
    headstart fit photos/                 one folder per class; that is all it needs
    headstart predict RUN image.jpg       RUN is the folder or the id that fit printed
    """


def main() -> None:
    """Run the command line; errors of Headstart become one line and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text; JSON stays valid
    try:
        _run()
    except (_Unread, BrokenPipeError):
        _end_unread()


def _run() -> None:
    try:
        cli.main(standalone_mode=False)
    except HeadstartError as error:
        click.echo(f"headstart: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo(stopped(sys.argv), err=True)
        sys.exit(130)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder taken away: the machine's trouble, not a defect
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"headstart: {printable(f'{where}{error.strerror or error}')}", err=True)
        sys.exit(1)


def _end_unread() -> None:
    """End without a word: whoever read the output, such as `head`, has seen enough."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what the streams still hold is written as Python ends
        os.dup2(nowhere, stream)
    sys.exit(0)
