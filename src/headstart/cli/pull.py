"""`headstart pull`: a classifier from the Hugging Face hub."""

import click

from headstart.cli.terminal import from_here, json_option, print_json


@click.command()
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--out", metavar="PATH", help="New folder. Default: runs/NAME.")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit. Default: the newest.")
@json_option
def command(repository: str, out: str | None, revision: str | None, as_json: bool) -> None:
    """Bring a classifier from the Hugging Face hub, or from its cache on this machine, as a run.

    \b
    headstart pull me/flowers
    headstart predict runs/flowers photo.jpg
    """
    from headstart.exports.hub import pull

    found = pull(repository, out=out, revision=revision)
    folder = found.model.parent
    if as_json:
        print_json({"path": str(folder), "classes": list(found.classes), "task": found.task})
    else:
        click.echo(f"saved in {from_here(folder)}; headstart predict {from_here(folder)} photo.jpg")
