"""`headstart plan`: what would it cost?"""

from typing import Any

import click

from headstart.cli.options import layout_options, on_option, preprocess_option, work_options
from headstart.cli.terminal import (
    json_option,
    labelled,
    print_json,
    table,
)
from headstart.runs.formatting import human_bytes, human_seconds, seconds_range


@click.command()
@click.argument("images", metavar="DIR|CSV|ZIP")
@click.option(
    "--backbones",
    metavar="NAME,...",
    help="Networks or files, with NAME@PX at another size. Default: all on this machine.",
)
@click.option(
    "--depths",
    metavar="DEPTH,...",
    help="Stages to freeze. Default: all, and two deeper cuts of the recommended backbone.",
)
@click.option("--budget", metavar="TIME", help="Say what this much time allows, e.g. 30s or 2m.")
@click.option("--head", default="ridge", show_default=True, help="Head: ridge or softmax.")
@on_option
@preprocess_option
@work_options
@layout_options
@json_option
def command(
    images: str,
    backbones: str | None,
    depths: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict accuracy, seconds, disk and memory of fits on these images; nothing is saved.

    \b
    headstart plan photos/
    headstart plan photos/ --backbones efficientnet_lite0@128,builtin --depths all,7 --budget 2m
    """
    from headstart.training.planning import plan

    found = plan(
        labelled(images, options),
        backbones=backbones.split(",") if backbones else None,
        depths=depths.split(",") if depths else None,
        **options,
    )
    if as_json:
        print_json(found.to_dict())
        return
    for line in lines(found):
        click.echo(line)


def lines(found: Any) -> list[str]:
    """The table, which row is recommended and why, then what is worth saying of it."""
    budgeted = found.budget is not None
    header = [
        "backbone",
        "depth",
        "accuracy",
        "from",
        "seconds",
        "range",
        "cache",
        "memory",
        "timing",
        "",
    ]
    rows = [
        [
            row.name,
            "all" if row.depth == row.stages else f"{row.depth} of {row.stages}",
            str(row.accuracy),
            row.accuracy.source,
            f"{row.seconds.median:.1f}",
            seconds_range((row.seconds.low, row.seconds.high)),
            *([row.allowed] if budgeted else []),
            human_bytes(row.cache_bytes),
            human_bytes(row.memory_bytes),
            row.basis,
            "recommended" if row.recommended else "front" if row.front else "",
        ]
        for row in found.rows
    ]
    if budgeted:
        header.insert(6, "budget allows")
    right = [4, *(index for index, name in enumerate(header) if name in ("cache", "memory"))]
    shown = [f"{found.images:,} images in {found.classes} classes", table(rows, header=header, right=right)]
    shown.append(f"recommended: {found.why}")
    shown += dict.fromkeys(row.reason for row in found.rows if row.reason)
    shown += found.notes
    if found.by_nodes:
        seconds = ", ".join(f"{nodes}: {human_seconds(took)}" for nodes, took in found.by_nodes.items())
        shown.append(f"on ray, by nodes like these: {seconds}")
    cached = max((1 - row.missing for row in found.rows), default=0.0)
    if cached > 0:
        shown.append(f"up to {cached:.0%} of the features are cached already; the seconds count on them")
    shown.append(f"planning took {found.seconds:.1f} s")
    return shown
