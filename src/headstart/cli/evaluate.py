"""`headstart evaluate`: a saved classifier on other labelled images."""

from typing import TYPE_CHECKING, Any

import click

from headstart.cli.options import layout_options, on_option
from headstart.cli.terminal import (
    from_here,
    json_option,
    labelled,
    name_left_out,
    print_json,
    progress_bar,
)
from headstart.runs.scores import FURTHER, headline, in_words

if TYPE_CHECKING:
    from headstart.runs import Run


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="DIR|CSV|ZIP")
@click.option("--record", is_flag=True, help="Save the evaluation as a run, where the classifier has none.")
@on_option
@layout_options
@json_option
def command(run: str, images: str, record: bool, on: str | None, as_json: bool, **options: Any) -> None:
    """Measure a saved classifier on labelled images that it was not trained on.

    \b
    headstart evaluate RUN photos-2/
    headstart evaluate my-classifier/ photos/ --record
    """
    from headstart.classifier import load
    from headstart.training.evaluation import ask, record_evaluation

    classifier = load(run)
    source = labelled(images, options, for_training=False, task=classifier.task)
    with progress_bar() as bar:
        if record:
            recorded = record_evaluation(classifier, source, progress=bar.on_progress, on=on)
            scores, skipped = recorded.evaluation["test"], recorded.data["skipped"]
            known = None
        else:
            answers = ask(classifier, source, progress=bar.on_progress, on=on)
            scores, known = answers.evaluation.to_dict(), answers.trained_on
            skipped = [item.to_dict() for item in answers.skipped]
    if known:
        click.echo(
            f"headstart: it was trained on {known} of these {scores['images']} images, which flatters the "
            "accuracy",
            err=True,
        )
    if as_json:
        where = {"run": recorded.id, "path": str(recorded.path)} if record else {}
        listed = [
            {"path": item["name"], **{key: item[key] for key in ("reason", "files", "litter")}}
            for item in skipped
        ]
        print_json({**where, **scores, "trained_on": known, "skipped": listed})
        return
    click.echo(_summary(scores))
    if record:
        click.echo(_where(recorded))
    name_left_out(skipped)


def _summary(scores: dict[str, Any]) -> str:
    others = ", ".join(in_words(name, scores[name]) for name in FURTHER if scores.get(name) is not None)
    return f"{headline(scores)} on {scores['images']} images, {others}"


def _where(run: "Run") -> str:
    import shlex

    return f"recorded as run {run.id}; see it with: headstart report {shlex.quote(from_here(run.path))}"
