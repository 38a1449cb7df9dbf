"""`headstart plan`: what would it cost?"""

from typing import Any

import click

from headstart.cli.options import backbones_option, layout_options, work_options
from headstart.cli.terminal import (
    json_option,
    labelled,
    print_json,
    table,
)
from headstart.runs.formatting import human_bytes


@click.command()
@click.argument("images", metavar="DIR|CSV|ZIP")
@backbones_option("Networks or files, with NAME@PX at another size.")
@click.option("--depths", metavar="DEPTH,...", help="Stages to freeze. Default: all, and two deeper cuts.")
@click.option("--budget", metavar="TIME", help="Say what this much time allows, e.g. 30s or 2m.")
@click.option("--head", default="ridge", show_default=True, help="Head: ridge or softmax.")
@work_options
@layout_options
@json_option
def command(
    images: str,
    backbones: str,
    depths: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict seconds, disk and memory of fits on these images; nothing is trained.

    \b
    headstart plan photos/
    headstart plan photos/ --backbones efficientnet_lite0@128,builtin --depths all,7 --budget 2m
    """
    from headstart.training.planning import plan

    found = plan(
        labelled(images, options),
        backbones=backbones.split(","),
        depths=depths.split(",") if depths else None,
        **options,
    )
    if as_json:
        print_json(found.to_dict())
        return
    for line in lines(found):
        click.echo(line)


def lines(found: Any) -> list[str]:
    """The table, then what is worth saying of it."""
    header = ["backbone", "px", "depth", "seconds", "low", "high", "cache", "memory", "keep", "basis"]
    budgeted = found.budget is not None
    rows = [
        [
            row.backbone,
            str(row.size),
            "all" if row.depth == row.stages else f"{row.depth} of {row.stages}",
            f"{row.seconds.median:.1f}",
            f"{row.seconds.low:.1f}",
            f"{row.seconds.high:.1f}",
            human_bytes(row.cache_bytes),
            human_bytes(row.memory_bytes),
            row.keep,
            row.basis,
            *([row.allowed] if budgeted else []),
        ]
        for row in found.rows
    ]
    shown = [f"{found.images:,} images in {found.classes} classes"]
    shown.append(
        table(rows, header=[*header, *(["budget allows"] if budgeted else [])], right=[1, 3, 4, 5, 6, 7])
    )
    shown += dict.fromkeys(row.reason for row in found.rows if row.reason)
    shown += [*_timed(found), *found.notes]
    cached = max((1 - row.missing for row in found.rows), default=0.0)
    if cached > 0:
        shown.append(f"up to {cached:.0%} of the features are cached already; the seconds count on them")
    shown.append(f"planning took {found.seconds:.1f} s")
    return shown


def _timed(found: Any) -> list[str]:
    """Of each network that was timed now: milliseconds an image, in all and by stage."""
    shown = []
    for label, by_stage in found.stages.items():
        stages = ", ".join(f"{name} {1e3 * seconds:.2g}" for name, seconds in by_stage.items())
        whole = f"{1e3 * sum(by_stage.values()):.2g}"
        shown.append(f"{label}, ms an image: {whole}; by stage, split by multiply-adds: {stages}")
    return shown
