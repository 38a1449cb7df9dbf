"""`headstart runs`: what was trained and recorded so far."""

from dataclasses import replace
from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json, table
from headstart.errors import OptionError, printable
from headstart.runs import Run, RunStore, UnreadableRun, look_at, sweep
from headstart.runs.formatting import percent

_KEYS = {
    "created": lambda run: run.created,
    "accuracy": lambda run: _accuracy(run),
    "seconds": lambda run: -run.seconds["total"],
}


@click.command()
@click.argument("names", nargs=-1, metavar="[RUN]")
@click.option(
    "--filter", "contains", default="", metavar="TEXT", help="List only runs whose record contains TEXT."
)
@click.option(
    "--sort", default="created", metavar="KEY", help="Order: created, accuracy or seconds; the best first."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    metavar="N",
    help="Most runs listed.",
    show_default=True,
)
@click.option("--calibration", is_flag=True, help="Show how good the predicted seconds have been.")
@click.option(
    "--rebuild", is_flag=True, help="Make the index again from the runs' folders and the FOLDERs given."
)
@json_option
def command(
    names: tuple[str, ...],
    contains: str,
    sort: str,
    limit: int,
    calibration: bool,
    rebuild: bool,
    as_json: bool,
) -> None:
    """List runs, or show one.

    \b
    headstart runs --sort accuracy
    headstart runs 20261123-204500
    headstart runs --calibration
    headstart runs --rebuild ~/experiments
    """
    sweep(Path("runs"))  # what killed fits left half written
    if rebuild:
        _rebuild([Path(each) for each in names], as_json=as_json)
        return
    if len(names) > 1:
        raise OptionError(f"{len(names)} runs: expected one, or none for the list")
    name = names[0] if names else None
    if calibration:
        _show_calibration(RunStore().select(contains=contains), most=limit, as_json=as_json)
        return
    if name:
        run = RunStore().find(name)
        print_json(run.to_dict()) if as_json else click.echo(_details(run))
        return
    if sort not in _KEYS:
        raise OptionError(f"--sort {sort!r}: expected one of {', '.join(_KEYS)}")
    runs, unreadable = _listed(contains, sort=sort, limit=limit)
    if as_json:
        print_json([*(run.to_dict() for run in runs), *map(_unreadable, unreadable)])
    elif contains and not runs:
        click.echo(f"no run has {contains!r} in its record; headstart runs lists all")
    elif not runs and not unreadable:
        click.echo("no runs yet; headstart fit DIR makes one")
    else:
        if runs:
            click.echo(table([_row(run) for run in runs], header=_HEADER, right=[4, 5, 6]))
        for each in unreadable:
            click.secho(f"{printable(each.id)}  cannot be read: {each.reason}", dim=True)


def _listed(contains: str, *, sort: str, limit: int) -> tuple[list[Run], list[UnreadableRun]]:
    """What is listed, each as its folder says it now; those that cannot be read last."""
    store = RunStore()
    entries = [*store.entries(contains=contains), *([] if contains else store.unlisted(Path("runs")))]
    known = {run.id: run for run in reversed(entries) if isinstance(run, Run)}
    runs: list[Run] = []
    unreadable = [run for run in entries if isinstance(run, UnreadableRun)]
    for run in sorted(known.values(), key=_KEYS[sort], reverse=True):
        if len(runs) == limit:
            break
        now = look_at(run.path) if run.path.is_dir() else run
        if isinstance(now, Run):
            runs.append(now)
        else:
            unreadable.append(replace(now, id=run.id, created=run.created))
    return runs, unreadable[:limit]


def _unreadable(run: UnreadableRun) -> dict[str, str]:
    return {"run": run.id, "path": str(run.path), "created": run.created, "unreadable": run.reason}


def _rebuild(folders: list[Path], *, as_json: bool) -> None:
    absent = next((each for each in folders if not each.is_dir()), None)
    if absent is not None:
        raise OptionError(f"{printable(absent)}: no such folder; give folders that hold runs")
    found = RunStore().rebuild([*folders, Path("runs")])
    if as_json:
        facts = {"gone": found.gone, "unreadable": [_unreadable(each) for each in found.unreadable]}
        print_json({"runs": [{"run": run.id, "path": str(run.path)} for run in found.runs], **facts})
        return
    count = len(found.runs)
    gone = f"; {found.gone} more are listed, whose folders are gone" if found.gone else ""
    click.echo(f"the index was made again from {count} {'run' if count == 1 else 'runs'}{gone}")
    for each in found.unreadable:
        click.echo(f"{printable(each.path)}  cannot be read: {each.reason}")


def _accuracy(run: Run) -> float:
    """On validation images; on test images where there are no others, as in an evaluation."""
    found = [run.accuracy.get(split) for split in ("validation", "test")]
    return next((share for share in found if share is not None), -1.0)


_HEADER = ["run", "data", "backbone", "depth", "validation", "test", "seconds"]


def _show_calibration(runs: list[Run], *, most: int, as_json: bool) -> None:
    from headstart.costs.prediction_error import calibration

    found = calibration(runs, most=most)
    if as_json:
        print_json(found.to_dict())
        return
    if found.median_absolute_error is None or found.share_inside is None:
        click.echo("no whole run of this machine with a prediction yet; headstart fit DIR makes one")
        return
    rows = [
        [
            each.run,
            f"{each.predicted.median:.2f}",
            f"{each.predicted.low:.2f}",
            f"{each.predicted.high:.2f}",
            f"{each.actual:.2f}",
            f"{each.error:+.0%}",
            "" if each.inside else "outside",
        ]
        for each in found.runs
    ]
    header = ["run", "predicted", "low", "high", "actual", "error", ""]
    click.echo(table(rows, header=header, right=[1, 2, 3, 4, 5]))
    click.echo(
        f"median absolute error {found.median_absolute_error:.0%}; "
        f"{found.share_inside:.0%} of {len(found.runs)} runs inside their range (meant: 90%)"
    )


def _row(run: Run) -> list[str]:
    config = run.config
    depth = "all" if config.depth == config.stages else f"{config.depth} of {config.stages}"
    depth = depth if run.trained else "-"
    name = config.data if len(config.data) <= 32 else "..." + config.data[-29:]
    shares = [percent(run.accuracy.get(split)) for split in ("validation", "test")]
    return [
        run.id,
        name,
        f"{config.backbone} {config.size} px",
        depth,
        *shares,
        f"{run.seconds['total']:.1f}",
    ]


def _details(run: Run) -> str:
    config = run.config
    frozen = f"{config.depth} of {config.stages} stages frozen" if run.trained else "trained elsewhere"
    validation, test = (percent(run.accuracy.get(split)) for split in ("validation", "test"))
    lines = [
        f"{run.id}  ({run.created})",
        f"folder    {run.path}",
        f"data      {config.data}: " + ", ".join(f"{count} {split}" for split, count in run.images.items()),
        f"backbone  {config.backbone} at {config.size} px, {frozen}, {config.runtime} {config.precision}",
        f"head      {config.head}" + (f", reading {', '.join(config.layers)}" if config.layers else ""),
        f"accuracy  validation {validation}, test {test}",
        "seconds   " + ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in run.seconds.items()),
    ]
    return "\n".join([*lines, *(f"note      {note}" for note in run.notes)])
