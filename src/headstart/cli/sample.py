"""`headstart sample`: fetch a public set of photographs."""

from dataclasses import asdict
from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json, progress_bar, table
from headstart.runs.formatting import human_bytes


@click.command()
@click.argument("name", required=False)
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@json_option
def command(name: str | None, folder: Path, as_json: bool) -> None:
    """Fetch a public set of photographs into FOLDER, the current one by default; without a name, list them.

    Its address, size, licence and checksum are shown before anything is fetched. A fetch that was interrupted
    goes on where it ended. The file is an archive, which every command reads as it is.

    \b
    headstart sample
    headstart sample ants-and-bees
    """
    from headstart.data.samples import SAMPLES, fetch, sample_named

    if name is None:
        if as_json:
            print_json([asdict(sample) for sample in SAMPLES.values()])
            return
        rows = [[each.name, human_bytes(each.bytes), each.shows, each.licence] for each in SAMPLES.values()]
        click.echo(table(rows, header=["sample", "size", "shows", "licence"], right=[1]))
        return
    sample = sample_named(name)
    facts = [
        ["address", sample.address],
        ["size", f"{human_bytes(sample.bytes)} ({sample.bytes} bytes)"],
        ["licence", sample.licence],
        ["SHA-256", sample.sha256],
    ]
    click.echo(table(facts, header=[sample.name, sample.shows]), err=True)
    with progress_bar() as bar:
        path = fetch(sample, folder, told=lambda done, total: bar.on_progress("bytes", done, total))
    if as_json:
        print_json({**asdict(sample), "path": str(path)})
        return
    click.echo(str(path))
    click.echo(f"next: headstart fit {path}, or headstart experiment model-choice {path}", err=True)
