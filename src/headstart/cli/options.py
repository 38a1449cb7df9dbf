"""Options that several commands have, each declared once; what they decide is `headstart.FitConfig`."""

from collections.abc import Callable
from typing import Any

import click

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _together(*options: _Decorator) -> _Decorator:
    """One decorator for some options, which the help then lists in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


layout_options = _together(
    click.option(
        "--splits",
        type=click.Choice(["folder", "none"]),
        default="folder",
        show_default=True,
        help="Folders named train, val, test are splits; none: top folders are the classes.",
    ),
    click.option(
        "--image-column", metavar="NAME", help="Of a table: where the images are; default: found out."
    ),
    click.option(
        "--label-column", metavar="NAME", help="Of a table: where the labels are; default likewise."
    ),
)
"""How labelled images are read, see `headstart.cli.terminal.labelled`."""

network_options = _together(
    click.option("--size", type=int, metavar="PX", help="Pixels a side; default: the backbone's own."),
    click.option(
        "--architecture", metavar="NAME", help="For files that do not say: timm name; pixels of a .keras."
    ),
)

work_options = _together(
    click.option(
        "--views", default="1", show_default=True, help="Renderings per training image: 1, flip, or a number."
    ),
    click.option("--epochs", type=int, metavar="N", help="Of whatever is trained in epochs."),
    click.option(
        "--batch-size", default=32, show_default=True, metavar="N", help="Images per training step."
    ),
    click.option("--runtime", default="auto", show_default=True, help="auto, openvino or torch."),
    click.option("--precision", default="auto", show_default=True, help="auto, bf16 or f32."),
)
"""What decides how long a training takes, beside its network, depth and head."""

grouping_options = _together(
    click.option(
        "--near-duplicates",
        default="group",
        show_default=True,
        help="On one side of the split: group or ignore.",
    ),
    click.option(
        "--groups",
        metavar="COLUMN",
        help="Of a table: images of one camera, patient or day stay on one side.",
    ),
)

training_options = _together(
    network_options,
    click.option(
        "--taps", default="auto", show_default=True, help="What a ridge head reads: auto, last or all."
    ),
    work_options,
    click.option("--validation", default=0.15, show_default=True, help="Share held out to choose on."),
    click.option("--test", default=0.15, show_default=True, help="Share held out to be read once."),
    grouping_options,
)
"""What a training and a comparison of trainings have in common."""
