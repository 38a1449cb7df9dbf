"""`headstart serve`: predictions over HTTP."""

import os
from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json

_MEBI = 2**20


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--latest", is_flag=True, help="RUN is a folder of runs: serve the newest, now and later.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond loopback a token is required.")
@click.option(
    "--port", default=8422, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Clients must send what is in it; or set HEADSTART_TOKEN.",
)
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="A further name of ours, such as a proxy's."
)
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1, 256), help="Images at once.")
@click.option(
    "--wait-ms", default=3.0, show_default=True, type=click.FloatRange(0, 1000), help="For a batch."
)
@click.option("--queue", default=256, show_default=True, type=click.IntRange(1), help="Images; beyond, 503.")
@click.option("--max-mb", default=32, show_default=True, type=click.IntRange(1), help="MiB of a request.")
@click.option("--max-images", default=64, show_default=True, type=click.IntRange(1), help="In a request.")
@click.option("--max-megapixels", default=50.0, show_default=True, type=click.FloatRange(0.01, 120))
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Seconds.")
@click.option("--watch", default=2.0, show_default=True, type=click.FloatRange(0), help="Seconds; 0: never.")
@json_option
def command(
    run: str,
    latest: bool,
    host: str,
    port: int,
    token_file: Path | None,
    allow_host: tuple[str, ...],
    batch: int,
    wait_ms: float,
    queue: int,
    max_mb: int,
    max_images: int,
    max_megapixels: float,
    timeout: float,
    watch: float,
    as_json: bool,
) -> None:
    """Answer POST /predict with a saved classifier, until SIGTERM or Ctrl-C. A newer run is taken up at once.

    \b
    headstart serve RUN
    headstart serve runs/ --latest
    curl -F images=@photo.jpg http://127.0.0.1:8422/predict
    """
    from headstart.serving.limits import Limits

    limits = Limits(
        body_bytes=max_mb * _MEBI,
        images=max_images,
        pixels=int(max_megapixels * 1e6),
        batch=batch,
        wait_seconds=wait_ms / 1000,
        queue=queue,
        memory_bytes=max(Limits.memory_bytes, 2 * max_mb * _MEBI),
        body_seconds=timeout,
        answer_seconds=timeout,
    )
    try:
        from headstart.serving import models, server
    except ImportError as error:
        from headstart.errors import MissingExtra

        raise MissingExtra("serving predictions", extra="serve") from error

    def say(address: str, name: str, token: str | None) -> None:
        if as_json:
            print_json({"address": address, "run": name, "token": token, "docs": f"{address}docs"})
            return
        click.echo(f"{name}: {address}predict  ({address}docs says how; Ctrl-C stops)", err=True)
        if token and not given:
            click.echo(f"clients must send  authorization: Bearer {token}", err=True)

    given = _token(token_file)
    server.serve(
        models.latest(run) if latest else models.fixed(run),
        host=host,
        port=port,
        token=given,
        also=allow_host,
        limits=limits,
        watch_seconds=watch,
        say=say,
    )


def _token(file: Path | None) -> str | None:
    """The token that the user chose; not an option of its own, because other users can read command lines."""
    from headstart.errors import OptionError

    text = file.read_text(encoding="utf-8") if file else os.environ.get("HEADSTART_TOKEN")
    if text is None:
        return None
    token = text.strip()
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        where = str(file) if file else "HEADSTART_TOKEN"
        raise OptionError(f"{where}: expected a token of ASCII letters, digits and signs without a space")
    return token
