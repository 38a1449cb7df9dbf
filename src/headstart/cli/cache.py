"""`headstart cache`: what is stored, and pruning it."""

import re
import time

import click

from headstart.cli.terminal import json_option, print_json, table
from headstart.errors import OptionError
from headstart.runs.formatting import human_bytes


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show what the feature cache holds: one line per backbone, size and runtime.

    \b
    headstart cache
    headstart cache prune --keep 2GB
    headstart cache prune --older-than 30d
    """
    if ctx.invoked_subcommand:
        return
    from headstart.features import FeatureCache
    from headstart.files import cache_folder

    cache = FeatureCache(cache_folder())
    partitions = cache.partitions()
    if as_json:
        print_json(
            {
                "path": str(cache.root),
                "bytes": sum(partition.bytes for partition in partitions),
                "partitions": [
                    {"id": p.id, **p.description, "bytes": p.bytes, "last_used": p.last_used}
                    for p in partitions
                ],
            }
        )
        return
    click.echo(f"{cache.root}: {human_bytes(sum(partition.bytes for partition in partitions))}")
    rows = [
        [
            str(found.get("backbone", found.get("kind", "?"))),
            str(found.get("size", "")),
            f"{found.get('runtime', '')} {found.get('precision', '')}".strip(),
            human_bytes(partition.bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(partition.last_used)),
        ]
        for partition in partitions
        for found in [partition.description]
    ]
    if rows:
        click.echo(table(rows, header=["backbone", "px", "runtime", "size", "last used"], right=[1, 3]))


@command.command()
@click.option("--keep", default="0", metavar="SIZE", help="Bytes to keep, e.g. 2GB; the oldest goes first.")
@click.option(
    "--older-than", default="0s", metavar="AGE", help="Remove only what was not used for so long, e.g. 30d."
)
@json_option
def prune(keep: str, older_than: str, as_json: bool) -> None:
    """Remove stored features; they are computed again when needed.

    \b
    headstart cache prune                    everything
    headstart cache prune --keep 2GB
    headstart cache prune --older-than 30d
    """
    from headstart.features import FeatureCache
    from headstart.files import cache_folder

    keep_bytes = int(
        _measure(keep, units={"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}, option="--keep")
    )
    age = _measure(
        older_than, units={"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}, option="--older-than"
    )
    dropped = FeatureCache(cache_folder()).prune(keep_bytes=keep_bytes, older_than=age)
    freed = sum(partition.bytes for partition in dropped)
    if as_json:
        print_json({"dropped": [partition.id for partition in dropped], "bytes": freed})
    else:
        click.echo(f"removed {len(dropped)} of the cache's partitions, {human_bytes(freed)}")


def _measure(text: str, *, units: dict[str, float], option: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if not match or match[2] not in units:
        known = ", ".join(f"5{unit}" for unit in units if unit)
        raise OptionError(f"{option} {text!r}: expected a number and a unit ({known})")
    return float(match[1]) * units[match[2]]
