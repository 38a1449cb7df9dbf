"""`headstart learn`: the lesson in the browser."""

import click

from headstart.cli.options import browser_options, pack_option
from headstart.cli.terminal import needing, to_stderr


@click.command()
@pack_option
@browser_options(8421)
def command(pack: str | None, port: int, host: str, no_browser: bool) -> None:
    """Open the lesson: nine ways to learn, and experiments that run on this machine. Works offline.

    \b
    headstart learn
    headstart learn --host 0.0.0.0 --no-browser     for a class; prints an address with an access token
    """
    with needing("the lesson in the browser", extra="web"):
        from headstart.lesson.pages import server
    server.serve(pack, host=host, port=port, browser=not no_browser, say=to_stderr)
