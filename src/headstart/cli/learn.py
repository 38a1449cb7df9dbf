"""`headstart learn`: the lesson in the browser."""

from pathlib import Path

import click

from headstart.cli.options import browser_options, pack_option, read_token, token_option
from headstart.cli.terminal import needing, to_stderr


@click.command()
@pack_option
@browser_options(8421)
@token_option("that browsers must bring")
def command(pack: str | None, port: int, host: str, no_browser: bool, token_file: Path | None) -> None:
    """Open the lessons: nine ways to learn each, and experiments that run on this machine. Works offline.

    \b
    headstart learn
    headstart learn --host 0.0.0.0 --no-browser     for guests; prints an address with an access token
    headstart class new NAME                        for a class with names and a teacher's page
    """
    with needing("the lesson in the browser", extra="web"):
        from headstart.lesson.pages import server
    server.serve(
        pack, token=read_token(token_file), host=host, port=port, browser=not no_browser, say=to_stderr
    )
