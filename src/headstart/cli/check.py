"""`headstart check`: what is wrong with the data?"""

import click

from headstart.cli.options import grouping_options, layout_options
from headstart.cli.terminal import (
    json_option,
    labelled,
    print_json,
    progress_bar,
)


@click.command()
@click.argument("images", metavar="DIR|CSV|ZIP")
@grouping_options
@layout_options
@json_option
def command(
    images: str,
    near_duplicates: str,
    groups: str | None,
    splits: str,
    image_column: str | None,
    label_column: str | None,
    as_json: bool,
) -> None:
    """Find unreadable files, duplicates, leaks between splits, imbalance and odd sizes.

    \b
    headstart check photos/
    """
    from headstart.checks import check

    with progress_bar() as bar:
        source = labelled(
            images, splits=splits, image_column=image_column, label_column=label_column, groups=groups
        )
        report = check(source, near_duplicates=near_duplicates, groups=groups, progress=bar.on_progress)
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(report.text())
