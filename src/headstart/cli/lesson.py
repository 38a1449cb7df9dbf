"""`headstart lesson`: make, check and preview lesson packs."""

import sys
from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json


@click.group()
def command() -> None:
    """Lesson packs: Markdown and YAML that anyone can write.

    \b
    headstart lesson new my-lesson
    headstart lesson check my-lesson
    headstart lesson preview my-lesson
    """


@command.command()
@click.argument("slug")
def new(slug: str) -> None:
    """Write a small pack that passes the check, to be filled in.

    \b
    headstart lesson new my-lesson
    """
    from headstart.lessons import library

    click.echo(library.new_pack(slug))


@command.command()
@click.argument("folder")
@json_option
def check(folder: str, as_json: bool) -> None:
    """Every breach of the pack's rules, with file and line.

    \b
    headstart lesson check my-lesson
    """
    from headstart.lessons import library

    findings = library.check_pack(folder)
    if as_json:
        print_json([str(finding) for finding in findings])
    elif not findings:
        click.echo(f"{folder}: nothing to mend")
    for finding in [] if as_json else findings:
        click.echo(str(finding))
    if findings:
        sys.exit(2)


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--port", default=8422, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
def preview(folder: Path, port: int, no_browser: bool) -> None:
    """Show a pack in the browser as a learner sees it; every saved file shows at once.

    \b
    headstart lesson preview my-lesson
    """
    try:
        from headstart.web import preview as pages
    except ImportError as error:
        from headstart.errors import MissingExtra

        raise MissingExtra("lessons in the browser", extra="web") from error
    pages.preview(folder, port=port, browser=not no_browser, say=lambda text: click.echo(text, err=True))
