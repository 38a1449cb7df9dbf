"""`headstart evaluate`: a saved classifier on other labelled images."""

import click

from headstart.cli.terminal import json_option, print_json, progress_bar


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", metavar="DIR|CSV|ZIP")
@json_option
def command(run: str, images: str, as_json: bool) -> None:
    """Measure a saved classifier on labelled images that it was not trained on.

    \b
    headstart evaluate RUN photos-2/
    """
    from headstart.classifier import load
    from headstart.evaluation import evaluate

    with progress_bar() as bar:
        found, skipped = evaluate(load(run), images, progress=bar)
    if as_json:
        print_json(
            {**found.to_dict(), "skipped": [{"path": item.name, "reason": item.reason} for item in skipped]}
        )
        return
    low, high = found.interval
    click.echo(
        f"accuracy {found.accuracy:.1%} ({low:.1%} to {high:.1%}) on {found.images} images, "
        f"macro-F1 {found.macro_f1:.3f}, calibration error {found.calibration_error:.3f}"
    )
    for item in skipped:
        click.echo(f"headstart: {item.name}: {item.reason}; skipped", err=True)
