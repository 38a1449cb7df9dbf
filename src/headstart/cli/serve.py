"""`headstart serve`: predictions over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headstart.cli.options import allow_host_option, port_option, read_token, token_option
from headstart.cli.terminal import json_option, needing, print_json, to_stderr

_MEBI = 2**20


def _limit(name: str, value: float, kind: Any, text: str) -> Callable[..., Any]:
    return click.option(name, default=value, show_default=True, type=kind, help=text)


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--latest", is_flag=True, help="Serve the newest run in the folder RUN, now and later.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address; beyond loopback a token is needed.",
)
@port_option(8422)
@token_option("that clients must send")
@allow_host_option
@click.option(
    "--allow-origin", multiple=True, metavar="ORIGIN", help="Other site whose pages may ask (CORS)."
)
@click.option("--access-log", is_flag=True, help="Write a line with the time for each request to stderr.")
@_limit("--batch", 16, click.IntRange(1, 256), "Most images in a batch.")
@_limit("--wait-ms", 3.0, click.FloatRange(0, 1000), "Most milliseconds to wait for a batch to fill.")
@_limit("--queue", 256, click.IntRange(1), "Most images waiting; beyond it 503.")
@_limit("--max-mb", 32, click.IntRange(1), "Most MiB of a request.")
@_limit("--max-images", 64, click.IntRange(1), "Most images in a request.")
@_limit("--max-megapixels", 50.0, click.FloatRange(0.01, 120), "Most megapixels of an image.")
@_limit("--timeout", 30.0, click.FloatRange(0.1), "Most seconds for a request to arrive, and to be answered.")
@_limit("--watch", 2.0, click.FloatRange(0), "Seconds between looks for a newer run; 0: on SIGHUP alone.")
@json_option
def command(
    run: str,
    latest: bool,
    host: str,
    port: int,
    token_file: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    access_log: bool,
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
    """Serve predictions of a saved classifier over HTTP, until SIGTERM or Ctrl-C.

    A newer run in its place is taken up without losing a request; on SIGHUP at once.

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
    with needing("serving predictions", extra="serve"):
        from headstart.serving import models, server

    def say(address: str, name: str, token: str | None) -> None:
        if as_json:
            print_json({"address": address, "run": name, "token": token, "docs": f"{address}docs"})
            return
        to_stderr(f"{name}: {address}predict  ({address}docs says how; Ctrl-C stops)")
        if token and not given:
            to_stderr(f"clients must send  authorization: Bearer {token}")

    given = read_token(token_file)
    server.serve(
        models.latest(run) if latest else models.fixed(run),
        host=host,
        port=port,
        token=given,
        also=allow_host,
        limits=limits,
        watch_seconds=watch,
        origins=allow_origin,
        access_log=access_log,
        say=say,
    )
