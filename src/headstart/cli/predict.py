"""`headstart predict`: label images with a saved classifier."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headstart.cli.options import on_option
from headstart.cli.terminal import json_option, name_left_out, print_json, progress_bar
from headstart.errors import printable
from headstart.heads.tasks import MULTI_LABEL
from headstart.runs.formatting import percent

if TYPE_CHECKING:
    from headstart.classifier import Classifier, Prediction, PredictOptions
    from headstart.data.dataset import Sample, Skipped
    from headstart.distributed.prediction import Written


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option("--top", default=5, show_default=True, metavar="K", help="Labels to give for each image.")
@click.option(
    "--reject",
    type=float,
    metavar="SHARE",
    help="Call images unlike the training images unknown, and of those like them this share, such as 0.05.",
)
@click.option(
    "--coverage",
    type=float,
    metavar="SHARE",
    help="Give as many labels as hold the right one for this share of images, such as 0.9.",
)
@click.option(
    "--csv", "table", metavar="FILE", help="Write a table for spreadsheets instead: a row for each image."
)
@click.option(
    "--out",
    metavar="FILE",
    help="Write a Parquet file instead: for any number of images, and to go on with.",
)
@on_option
@click.option("--explain", is_flag=True, help="Write a heat map of each image and name it.")
@click.option(
    "--explain-to", metavar="FOLDER", help="Folder for heat maps; implies --explain. Default: explanations."
)
@json_option
def command(
    run: str,
    images: tuple[str, ...],
    top: int,
    reject: float | None,
    coverage: float | None,
    table: str | None,
    out: str | None,
    on: str | None,
    explain: bool,
    explain_to: str | None,
    as_json: bool,
) -> None:
    """Label images; prints path, label and probability of each.

    \b
    headstart predict RUN image.jpg
    headstart predict RUN folder/ --json --top 3
    headstart predict RUN folder/ --reject 0.05 --coverage 0.9
    headstart predict RUN folder/ --csv labels.csv
    headstart predict RUN s3://photos/ --out predictions.parquet
    headstart predict RUN image.jpg --explain-to why/
    """
    from headstart.classifier import Prediction, PredictOptions, load
    from headstart.data.dataset import list_unlabelled
    from headstart.errors import OptionError
    from headstart.files import write_whole

    if table is not None and (Path(table).is_dir() or not Path(table).parent.is_dir()):
        raise OptionError(f"--csv {printable(table)}: expected a file in a folder that exists")
    if out is not None and (table is not None or explain or explain_to):
        raise OptionError("--out writes a Parquet file and nothing else; leave --csv and --explain out")
    if out is None and on is not None:
        raise OptionError(f"--on {on} goes with --out predictions.parquet")
    classifier = load(run)
    options = PredictOptions(top, reject, coverage)
    classifier.refuse(options)
    found = list_unlabelled(images)
    samples = found.samples
    name_left_out([item.to_dict() for item in found.skipped], most=None)
    if out is not None:
        _say_written(_to_parquet(classifier, samples, options, out=out, on=on), out, as_json=as_json)
        return
    heat = {}
    if explain or explain_to:
        from headstart.explanations import explain as explain_images

        named = [(sample.name, sample.source) for sample in samples]
        heat = explain_images(classifier, named, Path(explain_to or "explanations"))
    rows, unreadable = [], 0
    said: list[Prediction | Skipped] = []
    for result in classifier.predict_each(samples, options):
        said.append(result)
        if not isinstance(result, Prediction):
            click.echo(f"headstart: {result.name}: {result.reason}; skipped", err=True)
            unreadable += 1
            continue
        picture, why = heat.get(result.path, (None, None))
        if as_json:
            explained = {"file": str(picture), "method": why.method} if why else None
            rows.append(result.to_dict() | ({"heat_map": explained} if explained else {}))
        elif table is None:
            drawn = [str(picture)] if picture else []
            click.echo("\t".join([result.path, *_said(result, task=classifier.task), *drawn]))
    if table is not None:
        write_whole(Path(table), _as_csv(said, task=classifier.task))
    if as_json:
        print_json(rows)
    elif table is not None:
        broken = f", {unreadable:,} of them unreadable" if unreadable else ""
        click.echo(f"{len(said):,} images{broken}; saved in {printable(table)}")
    if unreadable and unreadable == len(samples):
        sys.exit(2)


def _say_written(written: "Written", out: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(written), "out": out})
    else:
        broken = f", {written.unreadable:,} of them unreadable" if written.unreadable else ""
        there = f", {written.found:,} were there" if written.found else ""
        click.echo(f"{written.images:,} images{broken}{there}; saved in {printable(out)}")
    if written.unreadable == written.images:
        sys.exit(2)


def _said(result: "Prediction", *, task: str) -> list[str]:
    """The answer's columns: label, probability and set, labels and probabilities, or number and interval."""
    if result.interval is not None:
        return [_label(result, task=task), f"{result.interval[0]:.4g} to {result.interval[1]:.4g}"]
    if result.value is not None:
        return [_label(result, task=task)]
    told = () if task == MULTI_LABEL else (result.label,)
    others = ", ".join(f"{label} {percent(found)}" for label, found in result.top if label not in told)
    columns = [_label(result, task=task)]
    if task != MULTI_LABEL:
        columns += [
            percent(result.probability),
            *([] if result.labels is None else [" or ".join(result.labels)]),
        ]
    return [*columns, *([f"({others})"] if others else [])]


def _label(result: "Prediction", *, task: str) -> str:
    """The label that is called, or the labels; of an unknown image, what it is most like."""
    label = ", ".join(result.labels or ()) or "none" if task == MULTI_LABEL else result.label
    return f"unknown (most like {label})" if result.known is False else label


def _as_csv(said: "Iterable[Prediction | Skipped]", *, task: str) -> bytes:
    """A row for each image, with plain numbers; one that cannot be read has its reason as a note."""
    from headstart.classifier.tables import columns, row_of
    from headstart.files.spreadsheets import as_csv

    return as_csv(columns(task), ([_cell(row_of(each).get(name)) for name in columns(task)] for each in said))


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        return "|".join(value)
    return str(value).lower() if isinstance(value, bool) else value


def _to_parquet(
    classifier: "Classifier",
    samples: "Sequence[Sample]",
    options: "PredictOptions",
    *,
    out: str,
    on: str | None,
) -> "Written":
    from headstart.distributed import place
    from headstart.distributed.prediction import predict_table

    with place(on) as where, progress_bar() as bar:
        return predict_table(classifier, samples, out, options, place=where, progress=bar.on_progress)
