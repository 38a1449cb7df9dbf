"""`headstart embed`: a vector for each image."""

from typing import Any

import click

from headstart.cli.options import network_options
from headstart.cli.terminal import json_option, name_left_out, print_json, progress_bar
from headstart.runs import FitConfig


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    help="FILE.parquet, or FILE.npy with FILE.npy.paths.csv.",
)
@click.option(
    "--backbone", default=FitConfig.backbone, metavar="NAME", help="Network or file. Default: as for fit."
)
@network_options
@click.option("--layer", metavar="NAME", help="Feature layer of the network. Default: the last one.")
@json_option
def command(images: tuple[str, ...], out: str, layer: str | None, as_json: bool, **options: Any) -> None:
    """Write what a pre-trained network says of each image: a vector, for search, grouping or other tools.

    \b
    headstart embed photos/ --out features.parquet
    headstart embed photos/ --backbone mobilenetv2_100 --size 96 --out features.npy
    """
    from headstart.errors import printable
    from headstart.features.embedding import check_target, embed

    check_target(out)
    with progress_bar() as bar:
        found = embed(images, layer=layer, progress=bar.on_progress, **options)
    name_left_out([each.to_dict() for each in found.skipped])
    saved = found.save(out)
    count, width = found.vectors.shape
    if as_json:
        facts = {"images": count, "width": width, "backbone": found.backbone, "layer": found.layer}
        print_json(facts | {"skipped": [each.to_dict() for each in found.skipped], "out": str(saved)})
        return
    click.echo(
        f"{count:,} images, {width:,} numbers each from {printable(found.backbone)}, layer {found.layer}; "
        f"saved in {printable(saved)}"
    )
