"""`headstart predict`: label images with a saved classifier."""

import sys

import click

from headstart.cli.terminal import json_option, print_json


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option(
    "--top", default=5, show_default=True, metavar="K", help="How many labels to give for each image."
)
@json_option
def command(run: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Label images: path, label, probability.

    \b
    headstart predict RUN image.jpg
    headstart predict RUN folder/ --json --top 3
    """
    from headstart.classifier import Prediction, load
    from headstart.dataset import list_images

    classifier = load(run)
    rows, unreadable = [], 0
    for result in classifier.predict_each(list_images(images), top=top):
        if not isinstance(result, Prediction):
            click.echo(f"headstart: {result.name}: {result.reason}; skipped", err=True)
            unreadable += 1
            continue
        if as_json:
            rows.append(result.to_dict())
        else:
            others = ", ".join(f"{label} {probability:.1%}" for label, probability in result.top[1:])
            click.echo(
                f"{result.path}\t{result.label}\t{result.probability:.1%}"
                + (f"\t({others})" if others else "")
            )
    if as_json:
        print_json(rows)
    if unreadable and unreadable == len(list_images(images)):
        sys.exit(2)
