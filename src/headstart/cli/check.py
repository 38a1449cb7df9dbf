"""`headstart check`: what is wrong with the data, or with the labels that a run was trained on?"""

from pathlib import Path
from typing import Any

import click

from headstart.cli.options import grouping_options, layout_options, task_option
from headstart.cli.terminal import json_option, labelled, print_json, progress_bar
from headstart.errors import OptionError, printable
from headstart.heads.tasks import only_single_label
from headstart.runs import RUN_FILE, Run, RunStore, read_label_errors, read_run

_SHOWN = 20
"""Labels that are likely wrong, in text; --json lists all."""


@click.command()
@click.argument("images", metavar="DIR|CSV|ZIP|RUN")
@grouping_options
@task_option
@layout_options
@json_option
def command(images: str, as_json: bool, **options: Any) -> None:
    """Find unreadable files, duplicates, leaks, imbalance and odd sizes; in a run, labels likely wrong.

    \b
    headstart check photos/
    headstart check RUN
    """
    if run := _run_of(images):
        context = click.get_current_context()
        given = [
            f"--{name.replace('_', '-')}"
            for name in options
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise OptionError(f"{given[0]} is for images; {printable(images)} is a run")
        found = label_errors(run)
        if as_json:
            print_json(found)
        else:
            click.echo("\n".join(_in_words(found)))
        return
    from headstart.data.checks import check
    from headstart.data.dataset import read_dataset

    task = options.pop("task")
    source: Any = labelled(images, options, task=task)
    if task is not None:
        source = read_dataset(source, groups=options["groups"], task=task)
    with progress_bar() as bar:
        report = check(source, progress=bar.on_progress, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(report.text())


def _run_of(name: str) -> Run | None:
    """The run that is meant; None where it is images."""
    if (Path(name) / RUN_FILE).exists():
        return read_run(Path(name))
    found = None if Path(name).exists() else RunStore().get(name)
    return read_run(found.path) if found else None


def label_errors(run: Run) -> dict[str, Any]:
    """Images of a run whose label is likely wrong, and how many of the first ones are to be expected so."""
    only_single_label(run.config.task, "looking for labels that are likely wrong")
    images, judged = read_label_errors(run.path, classes=run.classes), run.cross_validation or {}
    return {
        "run": run.id,
        "images": judged.get("images"),
        "wrong_labels": judged.get("wrong_labels"),
        "expected": {
            str(first): sum(image["wrong"] for image in images[:first]) / first
            for first in (10, 20, 50, 100, len(images))
            if 0 < first <= len(images)
        },
        "label_errors": images,
    }


def _in_words(found: dict[str, Any]) -> list[str]:
    images = found["label_errors"]
    lines = [f"{len(images):,} of {found['images']:,} labels are likely wrong"]
    expected = "; ".join(f"of the first {n} about {share:.0%}" for n, share in found["expected"].items())
    if expected:
        lines.append(f"expected to be wrong: {expected}")
    lines += [
        f"- {printable(image['path'])}: labelled {image['label']}, likely {image['likely']} "
        f"({image['wrong']:.0%} wrong)"
        for image in images[:_SHOWN]
    ]
    if len(images) > _SHOWN:
        lines.append(f"  and {len(images) - _SHOWN:,} more (--json lists all)")
    return lines
