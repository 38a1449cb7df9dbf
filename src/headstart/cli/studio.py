"""`headstart studio`: the workbench in the browser."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--root",
    default=".",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Only what lies in it can be chosen; default: the working directory.",
)
@click.option(
    "--port", default=8423, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
def command(root: Path, port: int, host: str, no_browser: bool) -> None:
    """Look, plan, train, compare, correct and use classifiers in the browser. Works offline.

    \b
    headstart studio
    headstart studio --root ~/Pictures --port 0
    """
    try:
        from headstart.studio import server
    except ImportError as error:
        from headstart.errors import MissingExtra

        raise MissingExtra("the studio in the browser", extra="web") from error
    server.serve(
        root, host=host, port=port, browser=not no_browser, say=lambda text: click.echo(text, err=True)
    )
