"""`headstart badge`: check a badge offline."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json


@click.group()
def command() -> None:
    """Badges are signed credentials, baked into a picture.

    \b
    headstart badge verify badge.png
    """


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def verify(file: Path, as_json: bool) -> None:
    """Check a badge's signature and say whose it is and what for.

    \b
    headstart badge verify badge.png
    """
    from headstart.lessons import badges, pictures
    from headstart.places import home_folder

    known = [badges.load_issuer(home_folder()).id]
    found = badges.verify(pictures.extract(file.read_bytes()), now=datetime.now(UTC), trusted=known)
    if as_json:
        print_json({**asdict(found), "credential": dict(found.credential)})
        return
    issuer = "this installation" if found.trusted else f"an issuer not known here ({found.issuer[:40]}…)"
    click.echo(
        f"valid: {found.name}, earned by {found.holder} on {found.issued_at:%Y-%m-%d}, signed by {issuer}"
    )
