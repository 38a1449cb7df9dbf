"""`headstart check`: what is wrong with the data?"""

from typing import Any

import click

from headstart.cli.options import grouping_options, layout_options
from headstart.cli.terminal import json_option, labelled, print_json, progress_bar


@click.command()
@click.argument("images", metavar="DIR|CSV|ZIP")
@grouping_options
@layout_options
@json_option
def command(images: str, as_json: bool, **options: Any) -> None:
    """Find unreadable files, duplicates, leaks between splits, imbalance and odd sizes.

    \b
    headstart check photos/
    """
    from headstart.data.checks import check

    with progress_bar() as bar:
        report = check(labelled(images, options), progress=bar.on_progress, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(report.text())
