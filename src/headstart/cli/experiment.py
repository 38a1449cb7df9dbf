"""`headstart experiment`: run what backs a lesson's claims on this machine."""

import json
from typing import Any

import click

from headstart.cli.terminal import json_option, print_json, progress_bar, table
from headstart.errors import OptionError
from headstart.runs.formatting import seconds_range


@click.command()
@click.argument("name", required=False)
@click.argument("folder", required=False, metavar="[DIR]")
@click.option(
    "--size",
    default="normal",
    show_default=True,
    help="normal, or small for a few seconds.",
)
@click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE", help="Set a parameter; may be repeated."
)
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@json_option
def command(
    name: str | None, folder: str | None, size: str, values: tuple[str, ...], seed: int, as_json: bool
) -> None:
    """Run an experiment, on your own images in DIR or on built-in ones; without a name, list them.

    \b
    headstart experiment
    headstart experiment one-pass --size small
    headstart experiment images-needed photos/ --set steps=200
    """
    from headstart.lesson import experiments

    if name is None:
        found = [experiments.describe(known, size=size) for known in experiments.registry()]
        if as_json:
            print_json([one.to_dict() for one in found])
        else:
            click.echo(_listing(found))
        return
    with progress_bar() as bar:
        result = experiments.run(
            name,
            parameters=_parameters(values),
            source=folder,
            size=size,
            seed=seed,
            progress=lambda *told: bar.on_progress(*told[:3]),
        )
    if as_json:
        print_json(result.to_dict())
        return
    for line in lines(result):
        click.echo(line)


def _parameters(values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for given, (name, equals, _) in zip(values, pairs, strict=True):
        if not name or not equals:
            raise OptionError(f"--set {given!r}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _listing(found: list[Any]) -> str:
    rows = [
        [one.name, seconds_range(one.predicted_range), one.missing and f"headstart[{one.missing}]", one.shows]
        for one in found
    ]
    return table(rows, header=["experiment", "seconds", "missing", "shows"], right=[1])


def _predicted(result: Any) -> str:
    said = result.predicted
    if not said:
        return f"{result.predicted_seconds:.0f} s"
    return f"{seconds_range((said['low'], said['high']))} s ({said['source']})"


def table_of(result: Any) -> str:
    """A result's table."""
    rows = [["-" if value is None else str(value) for value in row] for row in result.table.rows]
    return table(rows, header=result.table.columns)


def lines(result: Any) -> list[str]:
    """The table, the fields that lessons quote, and what one must know to read them."""
    fields = [[field, json.dumps(value, ensure_ascii=False)] for field, value in result.fields.items()]
    return [
        table_of(result),
        "",
        table(fields, header=["field", "value"]),
        "",
        *result.notes,
        f"{result.data}, seed {result.seed}: {result.seconds:.1f} s, predicted {_predicted(result)}",
    ]
