"""`headstart report`: a run or a comparison as one page."""

from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json


@click.command()
@click.argument("name", metavar="RUN|COMPARISON")
@click.option(
    "--out",
    metavar="FILE",
    help="File ending in .html, .md or .json. Default: report.html in the run's folder.",
)
@click.option("--explain", is_flag=True, help="Add heat maps of a run's most confident mistakes to the page.")
@json_option
def command(name: str, out: str | None, explain: bool, as_json: bool) -> None:
    """Write a report on a run or a comparison: one self-contained page, Markdown or JSON.

    \b
    headstart report RUN --explain
    headstart report COMPARISON --out choice.md
    """
    from headstart.reports import find, report

    made = report(find(name))
    if as_json and out is None:
        print_json(made.facts)
        return
    written = made.write(Path(out) if out else (made.folder or Path()) / "report.html", explain=explain)
    if as_json:
        print_json(made.facts)
    else:
        click.echo(str(written))
