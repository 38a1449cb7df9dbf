"""`headstart export`: a classifier in another format, checked against the original."""

import click

from headstart.cli.terminal import json_option, print_json, progress_bar
from headstart.runs.formatting import human_bytes, percent


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--to",
    required=True,
    metavar="FORMAT",
    help="Format: onnx, openvino, safetensors, torchscript, tflite or saved_model.",
)
@click.option("--out", metavar="DIR", help="New folder. Default: exports/FORMAT in the run's folder.")
@click.option(
    "--images",
    metavar="DIR|ZIP",
    help="The run's images, if they have moved, or any images to check with.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Quantise to eight bits (onnx, openvino), calibrated on training images.",
)
@click.option(
    "--int8-cost",
    type=float,
    default=1.0,
    show_default=True,
    metavar="POINTS",
    help="Most percentage points that --int8 may cost on the held-out images.",
)
@json_option
def command(
    run: str, to: str, out: str | None, images: str | None, int8: bool, int8_cost: float, as_json: bool
) -> None:
    """Write a classifier in another format, with a model card and a program that runs it without Headstart.

    \b
    headstart export RUN --to onnx
    headstart export RUN --to openvino --int8 --out flowers-int8
    """
    from headstart.exports import export

    with progress_bar() as bar:
        made = export(
            run, to=to, out=out, images=images, int8=int8, int8_cost=int8_cost, progress=bar.on_progress
        )
    if as_json:
        print_json(made.to_dict())
        return
    parity, spent = made.parity, made.int8
    click.echo(f"{made.path}: {human_bytes(sum(made.files.values()))} in {len(made.files)} files")
    if spent is None:
        most = f"differ by at most {parity.largest_difference:.2g}"
        click.echo(
            f"numbers of {parity.images} images {most} of the spread of those that it was trained on"
            if parity.numbers
            else f"same label as the classifier on all of {parity.images} images, probabilities {most}"
        )
    else:
        click.echo(
            f"int8: {percent(spent.accuracy)} against {percent(spent.original)} on {spent.images} held-out "
            f"images ({-spent.points:+.1f} points, standard error {spent.standard_error:.1f}); "
            f"{percent(spent.agreement)} of labels agree"
        )
    click.echo(f"try it: python {made.path / 'predict.py'} photo.jpg")
