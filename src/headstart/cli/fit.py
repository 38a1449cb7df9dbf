"""`headstart fit`: trains a classifier on a folder, table or archive, and saves it as a run."""

from collections.abc import Mapping
from typing import Any

import click

from headstart.cli.options import FORMER, layout_options, on_option, task_option, training_options
from headstart.cli.terminal import (
    from_here,
    json_option,
    labelled,
    left_of,
    name_left_out,
    open_tracker,
    print_json,
    progress_bar,
    tracked,
)
from headstart.heads.tasks import REGRESSION
from headstart.runs import DEFAULT_BACKBONE, FitConfig
from headstart.runs.scores import SCORES, headline, in_words


@click.command()
@click.argument("images", metavar="DIR|CSV|ZIP")
@click.option(
    "--backbone",
    default=FitConfig.backbone,
    show_default=DEFAULT_BACKBONE,
    metavar="NAME|FILE",
    help="Pre-trained network, a file of weights, or auto.",
)
@click.option(
    "--freeze",
    default="all",
    show_default=True,
    metavar="DEPTH",
    help="Stages to freeze: a number, a name, all or auto.",
)
@click.option("--head", show_default="ridge", help="Head: ridge (closed form) or softmax.")
@training_options
@click.option(
    "--learning-rate",
    type=float,
    metavar="RATE",
    help="Default: 0.001, and 0.1 from scratch.",
)
@click.option("--class-weights", metavar="balanced", help="Give rare classes more weight.")
@click.option("--weights-column", metavar="NAME", help="Column of a table: images' weights in training.")
@click.option("--scratch", is_flag=True, help="Train the network from random weights.")
@click.option("--costs", metavar="FILE", help="CSV of costs, true by called class: call what costs least.")
@click.option(
    "--priors", metavar="FILE|uniform", help="CSV of classes and their shares where it will be used."
)
@click.option("--folds", type=int, metavar="K", help="Also cross-validate the head over all images.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@click.option("--strict", is_flag=True, help="Refuse data with unreadable files.")
@click.option("--candidates", metavar="NAME,...", help="Networks for auto. Default: all on this machine.")
@click.option("--corrections", metavar="FILE", help="File of corrected labels.")
@click.option("--out", metavar="PATH", help="The run's folder. Default: runs/ID.")
@click.option("--budget", metavar="TIME", help="Most time for the whole command, e.g. 30s or 2m.")
@click.option("--track", metavar="NAME", help="Also write the run to mlflow or tensorboard.")
@click.option("--register", metavar="NAME", help="With --track mlflow: the model's name in its registry.")
@on_option
@task_option
@layout_options
@json_option
def command(
    images: str,
    as_json: bool,
    candidates: str | None,
    corrections: str | None,
    track: str | None,
    register: str | None,
    **options: Any,
) -> None:
    """Train, evaluate and save a classifier.

    \b
    headstart fit photos/
    headstart fit photos/ --backbone mobilenetv2_100 --size 96 --freeze 5 --epochs 10
    headstart fit photos/ --backbone builtin --scratch
    headstart fit photos/ --backbone auto --freeze auto --budget 2m
    headstart fit photos/ --head softmax --views 8 --budget 30s
    """
    from headstart.training import fit

    names = candidates.split(",") if candidates else None
    keeper = open_tracker(track, register=register)
    source: Any = labelled(images, options)
    if corrections:
        source = corrected(source, corrections, options)
    with progress_bar() as bar:
        budget = left_of(options.pop("budget"))
        _, run = fit(source, candidates=names, budget=budget, callbacks=[bar], **options)
    name_left_out(run.data["skipped"])
    if as_json:
        where = tracked(keeper, run)
        data = run.to_dict()
        if "taps" in click.get_current_context().meta.get(FORMER, ()):  # whoever says --taps reads it so, too
            data["config"]["taps"] = data["config"]["layers"]
        print_json(data | ({"tracked": where} if where else {}))
        return
    for line in summary(run):
        click.echo(line)
    if where := tracked(keeper, run):
        click.echo(where)


def corrected(images: Any, file: str, options: Mapping[str, Any]) -> Any:
    """The data set with the labels of a file of corrections."""
    from pathlib import Path

    from headstart.curation import Corrections
    from headstart.data.dataset import read_dataset
    from headstart.errors import OptionError

    if not Path(file).is_file():
        raise OptionError(f"{file}: no such file; --corrections takes what the studio or retraining kept")
    read: dict[str, Any] = {name: options.get(name) for name in ("groups", "weights_column", "task")}
    return Corrections(Path(file)).apply(read_dataset(images, **read))


def summary(run: Any) -> list[str]:
    """What a person wants to know: findings, epochs where there were any, then two lines."""
    from headstart.data.checks import images_of_each
    from headstart.runs.formatting import cross_validated

    classes = [] if run.config.task == REGRESSION else [images_of_each(run.data["classes"])]
    lines = [*run.notes, *classes, *(_epoch(entry) for entry in run.history)]
    counts = ", ".join(
        f"{run.images[split]} {split}" for split in ("train", "validation", "test") if run.images[split]
    )
    config = run.config
    frozen = (
        "all stages frozen"
        if config.depth == config.stages
        else f"{config.depth} of {config.stages} stages frozen"
    )
    if run.cross_validation:
        lines.append(cross_validated(run.cross_validation))
    lines.append(f"{_headline(run)} ({counts} images; {config.backbone} at {config.size} px, {frozen})")
    seconds = run.seconds
    expected = run.predicted_seconds
    predicted = f", predicted {expected['low']:.1f} to {expected['high']:.1f}" if expected else ""
    lines.append(f"{seconds['total']:.2f} s ({_phases(seconds)}){predicted}; saved in {from_here(run.path)}")
    return lines


def _phases(seconds: Any) -> str:
    """Seconds by phase, which add up to the total as it is shown."""
    shown = {phase: round(spent, 2) for phase, spent in seconds.items() if phase != "total"}
    rest = round(round(seconds["total"], 2) - sum(shown.values()), 2)
    if rest > 0:
        shown["other"] = rest  # loading the network, predicting
    return ", ".join(f"{phase} {spent:.2f}" for phase, spent in shown.items())


def _headline(run: Any) -> str:
    parts = []
    for split in ("validation", "test"):
        found = run.evaluation.get(split)
        if found:
            cost = [in_words("mean_cost", found["mean_cost"])] if "mean_cost" in found else []
            parts.append(", ".join([f"{split} {headline(found)}", *cost]))
    if not parts:
        estimate = run.head_fit.get("loo_accuracy")
        name = SCORES[run.config.task]
        return "no image held out" if estimate is None else f"leave-one-out {in_words(name, estimate)}"
    return ", ".join(parts)


def _epoch(entry: Any) -> str:
    measured = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in entry.items() if name != "epoch"]
    return f"epoch {int(entry['epoch'])}: " + ", ".join(measured)
