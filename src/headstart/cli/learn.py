"""`headstart learn`: the lesson in the browser."""

import click


@click.command()
@click.option("--pack", metavar="NAME|DIR", help="A lesson pack; default: the bundled lesson.")
@click.option(
    "--port", default=8421, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--no-browser", is_flag=True, help="Print the address and open nothing.")
def command(pack: str | None, port: int, host: str, no_browser: bool) -> None:
    """Open the lesson: nine ways to learn, and experiments that run on this machine. Works offline.

    \b
    headstart learn
    headstart learn --host 0.0.0.0 --no-browser     for a class; prints an address with an access token
    """
    try:
        from headstart.lesson.pages import server
    except ImportError as error:
        from headstart.errors import MissingExtra

        raise MissingExtra("the lesson in the browser", extra="web") from error
    server.serve(
        pack, host=host, port=port, browser=not no_browser, say=lambda text: click.echo(text, err=True)
    )
