"""`headstart lesson`: make and check lesson packs."""

import sys

import click

from headstart.cli.terminal import json_option, print_json


@click.group()
def command() -> None:
    """Lesson packs: Markdown and YAML that anyone can write.

    \b
    headstart lesson new my-lesson
    headstart lesson check my-lesson
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
