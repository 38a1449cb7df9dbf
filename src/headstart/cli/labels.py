"""`headstart labels`: labels for other programs."""

from pathlib import Path
from typing import Any

import click

from headstart.cli.options import layout_options, task_option
from headstart.cli.terminal import json_option, labelled, name_left_out, print_json


@click.command()
@click.argument("images", metavar="DIR|CSV|JSON|ZIP")
@click.option("--to", required=True, metavar="FORM", help="Form: coco, label-studio or fiftyone.")
@click.option("--out", required=True, metavar="FILE", help="New file, such as labels.json.")
@click.option("--corrections", metavar="FILE", help="File of corrected labels.")
@task_option
@layout_options
@json_option
def command(images: str, to: str, out: str, corrections: str | None, as_json: bool, **options: Any) -> None:
    """Write the labels of images for COCO's tools, Label Studio or FiftyOne.

    What these write is read wherever labelled images are: headstart fit labels.json

    \b
    headstart labels photos/ --to coco --out labels.json
    headstart labels labels.csv --to label-studio --out tasks.json
    """
    from headstart.cli.fit import corrected
    from headstart.data.dataset import read_dataset
    from headstart.data.dataset.label_files import label_file
    from headstart.errors import OptionError, printable
    from headstart.files import write_whole

    place = Path(out)
    if place.is_dir() or not place.parent.is_dir():
        raise OptionError(f"--out {printable(out)}: expected a file in a folder that exists")
    source: Any = labelled(images, options, for_training=False)
    if corrections:
        source = corrected(source, corrections, options)
    dataset = read_dataset(source, for_training=False, task=options["task"])
    text = label_file(dataset, to)
    name_left_out([each.to_dict() for each in dataset.skipped])
    write_whole(place, text)
    if as_json:
        print_json({"images": len(dataset), "classes": list(dataset.classes), "out": str(place)})
    else:
        click.echo(f"{len(dataset):,} images, {len(dataset.classes):,} classes; saved in {printable(out)}")
