"""Options that several commands have, each declared once; those of trainings decide `headstart.FitConfig`."""

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headstart.runs import DEFAULT_BACKBONE, FitConfig

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


FORMER = "headstart.former"
"""Where a command's context keeps the former names of options that were given."""


def _former_layers(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Take what an earlier version called --taps; --layers wins where both are given."""
    if value is not None:
        click.echo("headstart: --taps is called --layers now", err=True)
        context.default_map = {**(context.default_map or {}), "layers": value}
        context.meta.setdefault(FORMER, []).append("taps")


def _together(*options: _Decorator) -> _Decorator:
    """One decorator for some options, which the help then lists in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


task_option = click.option(
    "--task", metavar="TASK", help="single-label, multi-label or regression. Default: found from the labels."
)

layout_options = _together(
    click.option(
        "--splits",
        type=click.Choice(["folder", "none"]),
        default="folder",
        show_default=True,
        help="folder: folders named train, val and test are splits; none: top folders are classes.",
    ),
    click.option(
        "--image-column", metavar="NAME", help="Column of a table with the images. Default: recognised."
    ),
    click.option(
        "--label-column", metavar="NAME", help="Column of a table with the labels. Default: recognised."
    ),
)
"""How labelled images are read, see `headstart.cli.terminal.labelled`."""

preprocess_option = click.option(
    "--preprocess",
    metavar="PIXELS",
    help="Pixels of an .onnx or .keras file that does not say: a family, a range or MEAN/STD.",
)

network_options = _together(
    click.option("--size", type=int, metavar="PX", help="Pixels a side. Default: the backbone's own."),
    click.option("--architecture", metavar="NAME", help="timm name of a file of weights that does not say."),
    preprocess_option,
)


def backbones_option(text: str) -> _Decorator:
    """Which networks a command looks at."""
    return click.option(
        "--backbones",
        default=FitConfig.backbone,
        show_default=DEFAULT_BACKBONE,
        metavar="NAME,...",
        help=text,
    )


work_options = _together(
    click.option(
        "--views", default="1", show_default=True, help="Views of each training image: 1, flip or a number."
    ),
    click.option(
        "--epochs",
        type=int,
        metavar="N",
        help="Epochs. Default: by the method.",
    ),
    click.option(
        "--batch-size", default=32, show_default=True, metavar="N", help="Images per training step."
    ),
    click.option(
        "--runtime",
        default="auto",
        show_default=True,
        help="For frozen layers: auto, openvino, torch.",
    ),
    click.option(
        "--precision",
        default="auto",
        show_default=True,
        help="Of frozen layers: auto, bf16, f32.",
    ),
)
"""What decides how long a training takes, beside its network, depth and head."""

on_option = click.option(
    "--on",
    metavar="ray",
    help="Where to work: ray, the cluster at RAY_ADDRESS or this machine's cores. Default: this process.",
)

grouping_options = _together(
    click.option(
        "--near-duplicates",
        default="group",
        show_default=True,
        help="group: keep near-duplicates on one side of the split; ignore: split them as any image.",
    ),
    click.option(
        "--groups",
        metavar="COLUMN|TABLE|PATTERN",
        help="What stays on one side of the split: a column, a table of files and groups, or a pattern of "
        "names ({group}_*.jpg).",
    ),
)

pack_option = click.option("--pack", metavar="NAME|DIR", help="Lesson pack. Default: the bundled lesson.")
mode_option = click.option(
    "--mode", default="challenge", show_default=True, help="Mode that has the problems."
)
learner_option = click.option(
    "--learner",
    metavar="NAME",
    default=getpass.getuser,
    help="Learner's name. Default: your login name.",
)


def browser_options(port: int) -> _Decorator:
    """Where pages are served, and whether a browser opens."""
    return _together(
        port_option(port),
        click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
        no_browser_option,
    )


def token_option(what: str) -> _Decorator:
    """Where a token of the user's own stands; no option takes it, because other users can read commands."""
    return click.option(
        "--token-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=f"File with the token {what}. Default: HEADSTART_TOKEN.",
    )


def read_token(file: Path | None) -> str | None:
    """The token of `token_option`, or None. Raises OptionError for what cannot be one."""
    from headstart.errors import OptionError

    text = file.read_text(encoding="utf-8") if file else os.environ.get("HEADSTART_TOKEN")
    if text is None:
        return None
    token = text.strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        where = str(file) if file else "HEADSTART_TOKEN"
        raise OptionError(f"{where}: expected a token of ASCII letters, digits and signs without a space")
    return token


def port_option(port: int) -> _Decorator:
    """Where a server listens unless told otherwise."""
    kind = click.IntRange(0, 65535)
    return click.option("--port", default=port, show_default=True, type=kind, help="Port; 0: any free one.")


allow_host_option = click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Further name of this server, e.g. a proxy's."
)

no_browser_option = click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")

training_options = _together(
    network_options,
    click.option("--taps", hidden=True, expose_value=False, is_eager=True, callback=_former_layers),
    click.option(
        "--layers",
        default="auto",
        show_default=True,
        help="Layers that a ridge head reads: auto, last or all.",
    ),
    work_options,
    click.option("--validation", default=0.15, show_default=True, help="Share held out to choose on."),
    click.option("--test", default=0.15, show_default=True, help="Share held out and read once."),
    grouping_options,
)
"""What a training and a comparison of trainings have in common."""
