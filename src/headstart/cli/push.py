"""`headstart push`: a classifier on the Hugging Face hub."""

import click

from headstart.cli.terminal import json_option, print_json


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Open a new repository to everybody. Default: private.")
@json_option
def command(run: str, repository: str, public: bool, as_json: bool) -> None:
    """Put a classifier on the Hugging Face hub, with a model card.

    The names of your photographs and folders stay here; notes of the run go with it.

    \b
    headstart push RUN me/flowers
    """
    from headstart.exports.hub import push

    address = push(run, repository, public=public)
    if as_json:
        print_json({"address": address})
    else:
        click.echo(address)
