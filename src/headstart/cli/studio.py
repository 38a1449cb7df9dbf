"""`headstart studio`: the workbench in the browser."""

from pathlib import Path

import click

from headstart.cli.options import browser_options
from headstart.cli.terminal import needing, to_stderr


@click.command()
@click.option(
    "--root",
    default=".",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder whose content can be chosen. Default: the working directory.",
)
@browser_options(8423)
def command(root: Path, port: int, host: str, no_browser: bool) -> None:
    """Look, plan, train, compare, correct and use classifiers in the browser. Works offline.

    \b
    headstart studio
    headstart studio --root ~/Pictures --port 0
    """
    with needing("the studio in the browser", extra="web"):
        from headstart.studio import server
    server.serve(root, host=host, port=port, browser=not no_browser, say=to_stderr)
