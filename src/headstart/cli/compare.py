"""`headstart compare`: which model, how deep to freeze, and is training from scratch worth it?"""

from typing import Any

import click
from click.core import ParameterSource

from headstart.cli.options import backbones_option, layout_options, on_option, training_options
from headstart.cli.terminal import (
    from_here,
    json_option,
    labelled,
    left_of,
    open_tracker,
    print_json,
    progress_bar,
    table,
    tracked,
)
from headstart.errors import OptionError


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="DIR|CSV|ZIP|RUN RUN...")
@backbones_option("Pre-trained networks.")
@click.option(
    "--depths",
    default="all",
    show_default=True,
    metavar="all,5",
    help="Stages to freeze: numbers, names, all.",
)
@click.option("--heads", default="ridge", show_default=True, metavar="A,B", help="Heads: ridge, softmax.")
@click.option("--seeds", default=3, show_default=True, metavar="N", help="Trainings of each candidate.")
@click.option("--scratch", is_flag=True, help="Also train every network from random weights.")
@click.option(
    "--images", default="all", show_default=True, metavar="10,30,all", help="Training images of each class."
)
@training_options
@click.option("--out", metavar="PATH", help="The comparison's folder. Default: comparisons/ID.")
@click.option("--budget", metavar="TIME", help="Most time for the whole command, e.g. 5m.")
@click.option("--track", metavar="NAME", help="Also write every training to mlflow or tensorboard.")
@on_option
@layout_options
@json_option
def command(
    sources: tuple[str, ...],
    as_json: bool,
    track: str | None,
    **options: Any,
) -> None:
    """Train candidates on one split and weigh accuracy against seconds; or weigh saved runs.

    \b
    headstart compare photos/ --depths all,5 --heads ridge,softmax
    headstart compare photos/ --scratch --images 10,30,100,all --budget 5m
    headstart compare RUN RUN
    """
    from headstart.comparisons import compare, compare_runs
    from headstart.comparisons.training import grid

    keeper = open_tracker(track)
    if len(sources) > 1 or _is_run(sources[0]):
        from headstart.runs import RunStore

        runs = [RunStore().find(name) for name in sources]
        _refuse_options()
        found = compare_runs(runs)
    else:
        candidates = grid(
            backbones=_listed(options.pop("backbones")),
            depths=_listed(options.pop("depths")),
            heads=_listed(options.pop("heads")),
            images=[_count(word) for word in _listed(options.pop("images"))],
            **{name: options.pop(name) for name in _OF_GRID},
        )
        source = labelled(sources[0], options)
        with progress_bar() as bar:
            budget = left_of(options.pop("budget"))
            found = compare(source, candidates, budget=budget, callbacks=[bar], **options)
    if as_json:
        where = tracked(keeper, found)
        print_json(_facts(found) | ({"tracked": where} if where else {}))
        return
    for line in lines(found):
        click.echo(line)
    if where := tracked(keeper, found):
        click.echo(where)


def _is_run(source: str) -> bool:
    from pathlib import Path

    from headstart.runs import RUN_FILE

    return (Path(source) / RUN_FILE).is_file()


def _refuse_options() -> None:
    """Saved runs are weighed as they are and nothing is saved: an option that asks for more is a mistake."""
    context = click.get_current_context()
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in ("sources", "as_json", "track")
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise OptionError(
            f"{', '.join(given)}: without effect on saved runs, which are weighed as they are; leave it out"
        )


_OF_GRID = ("scratch", "size", "layers", "views", "epochs", "architecture", "preprocess")


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _count(word: str) -> int | None:
    if word == "all":
        return None
    if not word.isdecimal():
        raise OptionError(f"--images {word!r}: expected numbers from 1 up, or all")
    return int(word)


def _facts(comparison: Any) -> dict[str, Any]:
    """The comparison, with what is computed from it."""
    from headstart.comparisons import summaries

    return {
        **comparison.to_dict(),
        "summaries": [summary.to_dict() for summary in summaries(comparison)],
    }


def lines(comparison: Any) -> list[str]:
    """The table, the choice and its reasons, and what could not be told apart."""
    from headstart.comparisons import summaries
    from headstart.reports.text import NO_CHOICE

    rows = [
        [
            summary.candidate.name,
            f"{summary.accuracy:.1%}",
            f"{summary.interval[0]:.1%} to {summary.interval[1]:.1%}",
            "-" if summary.trials == 1 else f"{summary.spread[0]:.1%} to {summary.spread[1]:.1%}",
            f"{summary.images:,}",
            f"{summary.seconds:.2f}",
            "front" if summary.on_front else "",
        ]
        for summary in summaries(comparison)
    ]
    header = ["candidate", "validation", "95% interval", "over seeds", "images", "seconds", "Pareto"]
    shown = [*comparison.notes, table(rows, header=header, right=[1, 4, 5])]
    if comparison.choice:
        choice = comparison.choice
        shown += ["", f"take {choice.candidate.name}:", *(f"  {reason}" for reason in choice.reasons)]
        if choice.test:
            low, high = choice.test["interval"]
            shown.append(
                f"  on {choice.test['images']} test images, read once: {choice.test['accuracy']:.1%} "
                f"({low:.1%} to {high:.1%})"
            )
        if choice.not_significant:
            shown += ["not told apart by these images:", *(f"  {line}" for line in choice.not_significant)]
        shown.append(f"to have it: {choice.command}")
    else:
        shown += ["", NO_CHOICE]
    if comparison.path:
        expected = comparison.predicted_seconds
        predicted = f", predicted {expected['low']:.1f} to {expected['high']:.1f}" if expected else ""
        shown.append(f"{comparison.seconds:.1f} s in all{predicted}; saved in {from_here(comparison.path)}")
    return shown
