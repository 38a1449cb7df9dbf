"""`headstart badge`: check a badge offline."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headstart.cli.options import learner_option, pack_option
from headstart.cli.terminal import json_option, print_json

if TYPE_CHECKING:
    from headstart.lesson.engine.attempts import Challenge
    from headstart.lesson.engine.pack import Pack
    from headstart.lesson.engine.progress import Progress


@click.group()
def command() -> None:
    """Take a badge, or check one: a signed credential, baked into a picture.

    \b
    headstart badge take badge.png
    headstart badge verify badge.png
    """


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pack_option
@learner_option
@click.option("--name", metavar="NAME", help="Name on the badge. Default: the learner's.")
def take(file: Path, pack: str | None, learner: str, name: str | None) -> None:
    """Write the badge of your latest challenge with all answers right.

    FILE ends in .png or .svg for a picture, .jwt for the bare credential. The challenge may have been taken
    in the browser or in the terminal. A badge keeps the name it was signed with.

    \b
    headstart badge take badge.png
    """
    from headstart.errors import LessonError
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine.progress import Progress

    lesson = library.load_pack(pack)
    store = Progress.open()
    earned = [state for state in store.challenges(learner=learner, pack=lesson.slug) if state.earns_badge]
    if not earned:
        raise LessonError(
            f"{learner} has no challenge of this lesson with all answers right; headstart challenge plays it"
        )
    take_badge(earned[-1], lesson, store, file, name=name or learner)


def check_ending(file: Path) -> str:
    """A badge file's ending, which says what is written; refused before any work where it is another."""
    from headstart.errors import OptionError

    ending = file.suffix.lower()
    if ending not in (".png", ".svg", ".jwt"):
        raise OptionError(f"{file}: expected a name that ends in .png, .svg or .jwt")
    return ending


def take_badge(challenge: "Challenge", lesson: "Pack", store: "Progress", file: Path, *, name: str) -> None:
    """Signs the badge of a challenge unless it has one, and writes it as the file's ending says."""
    from headstart.files import home_folder, write_whole
    from headstart.lesson import experiments
    from headstart.lesson.engine import badge_images as pictures
    from headstart.lesson.engine import badges

    ending = check_ending(file)
    now = datetime.now(UTC)
    credential = badges.award(
        challenge,
        lesson,
        store,
        name=name,
        home=home_folder(),
        latest=partial(experiments.latest, as_declared=True),
        now=now,
    )
    holder, title = badges.verify(credential, now=now).holder, lesson.badge.title
    match ending:
        case ".png":
            write_whole(file, pictures.bake_png(pictures.draw_png(title, holder), credential))
        case ".svg":
            write_whole(file, pictures.bake_svg(pictures.draw_svg(title, holder), credential))
        case _:
            write_whole(file, credential)
    click.echo(f"badge written to {file}; headstart badge verify {file} checks it", err=True)


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def verify(file: Path, as_json: bool) -> None:
    """Check a badge's signature and say whose it is and what for.

    \b
    headstart badge verify badge.png
    """
    from headstart.errors import printable
    from headstart.files import Unreadable, home_folder, read_regular
    from headstart.lesson.engine import badge_images as pictures
    from headstart.lesson.engine import badges

    known = [badges.load_issuer(home_folder()).id]
    try:
        picture = read_regular(file, limit=pictures.LARGEST_PICTURE)
    except Unreadable as error:
        raise badges.BadgeError(f"{printable(file)}: this is no badge: {error}") from None
    found = badges.verify(pictures.extract(picture), now=datetime.now(UTC), trusted=known)
    if as_json:
        print_json({**asdict(found), "credential": dict(found.credential)})
        return
    issuer = "this installation" if found.trusted else f"an issuer not known here ({found.issuer[:40]}…)"
    earned = f"{found.name}, earned by {found.holder} on {found.issued_at:%Y-%m-%d}"
    click.echo(printable(f"valid: {earned}, signed by {issuer}"))
    if found.circumstances:
        click.echo(f"it says: {found.circumstances}")
