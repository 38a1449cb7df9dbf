"""`headstart challenge`: the timed problems of a lesson, in the terminal."""

import getpass
from datetime import UTC, datetime
from pathlib import Path

import click

from headstart.cli.terminal import json_option, print_json


class _Terminal:
    def say(self, text: str) -> None:
        click.echo(text, err=True)

    def ask(self, prompt: str) -> str:
        click.echo(prompt, err=True, nl=False)
        return input()


@click.command()
@click.option("--pack", metavar="NAME|DIR", help="A lesson pack; default: the bundled lesson.")
@click.option("--learner", metavar="NAME", help="Whose challenge it is; default: your login name.")
@click.option(
    "--timer", default="1", show_default=True, metavar="FACTOR", help="Time factor, 1 to 10, or off."
)
@click.option("--badge", type=click.Path(path_type=Path), metavar="PNG", help="Where an earned badge goes.")
@json_option
def command(pack: str | None, learner: str | None, timer: str, badge: Path | None, as_json: bool) -> None:
    """Five problems, two minutes each, two attempts; leaving and coming back loses nothing.

    \b
    headstart challenge
    headstart challenge --timer off --badge badge.png
    """
    from headstart.errors import OptionError
    from headstart.lessons import library, terminal
    from headstart.lessons.progress import Progress
    from headstart.places import home_folder, make

    try:
        factor = None if timer == "off" else float(timer)
    except ValueError:
        raise OptionError(f"--timer {timer!r}: expected a factor from 1 to 10, or off") from None
    lesson = library.load_pack(pack) if pack else library.load_pack()
    home = home_folder()
    make(home)
    played = terminal.play(
        lesson,
        Progress.open(home / "progress.db"),
        _Terminal(),
        lambda: datetime.now(UTC),
        learner=learner or getpass.getuser(),
        timer=factor,
    )
    if badge and played.earns_badge:
        from headstart.lessons import badges, pictures

        name = learner or getpass.getuser()
        credential = badges.issue(played, lesson, name=name, issuer=badges.load_issuer(home))
        badge.write_bytes(pictures.bake_png(pictures.draw_png(lesson.badge.title, name), credential))
        click.echo(f"badge written to {badge}; headstart badge verify {badge} checks it", err=True)
    if as_json:
        print_json({"points": played.points, "badge": played.earns_badge, "challenge": played.id})
