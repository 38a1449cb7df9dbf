"""`headstart challenge`: the timed problems of a lesson, in the terminal."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from headstart.cli.options import learner_option, pack_option
from headstart.cli.terminal import json_option, print_json, progress_bar


class _Terminal:
    def say(self, text: str) -> None:
        click.echo(text, err=True)

    def ask(self, prompt: str) -> str:
        click.echo(prompt, err=True, nl=False)
        return input()


class _Experiments:
    """The experiments; they are offered where somebody sits at the terminal."""

    def results(self) -> Mapping[str, Mapping[str, object]]:
        from headstart.lesson import experiments
        from headstart.lesson.engine.reference import completed

        return completed(experiments.results())

    def offer(self, name: str) -> str:
        from headstart.lesson import experiments
        from headstart.runs.formatting import seconds_range

        if not sys.stdin.isatty() or name not in experiments.registry():
            return ""
        about = experiments.describe(name)
        return "" if about.missing else f"{seconds_range(about.predicted_range)} s"

    def run(self, name: str) -> None:
        from headstart.lesson import experiments

        with progress_bar() as bar:
            experiments.run(name, progress=lambda *told: bar.on_progress(*told[:3]))

    def table(self, name: str) -> str:
        from headstart.cli.experiment import table_of
        from headstart.lesson import experiments

        result = experiments.latest(name, as_declared=True) if name in experiments.registry() else None
        return table_of(result) if result else ""


@click.command()
@pack_option
@learner_option
@click.option(
    "--timer", default="1", show_default=True, metavar="FACTOR", help="Factor for the time, 1 to 10, or off."
)
@click.option("--badge", type=click.Path(path_type=Path), metavar="PNG", help="File for an earned badge.")
@json_option
def command(pack: str | None, learner: str, timer: str, badge: Path | None, as_json: bool) -> None:
    """Take five timed problems, two minutes and two attempts each.

    Leaving and coming back loses nothing.

    \b
    headstart challenge
    headstart challenge --timer off --badge badge.png
    """
    from headstart.errors import OptionError
    from headstart.files import home_folder, make
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine import terminal
    from headstart.lesson.engine.progress import Progress

    try:
        factor = None if timer == "off" else float(timer)
    except ValueError:
        raise OptionError(f"--timer {timer!r}: expected a factor from 1 to 10, or off") from None
    if badge:
        from headstart.cli.badge import check_ending

        check_ending(badge)
    lesson = library.load_pack(pack)
    home = home_folder()
    make(home)
    store = Progress.open()
    played = terminal.play(
        lesson,
        store,
        _Terminal(),
        lambda: datetime.now(UTC),
        learner=learner,
        timer=factor,
        experiments=_Experiments(),
    )
    if played.earns_badge:
        if badge:
            from headstart.cli.badge import take_badge

            take_badge(played, lesson, store, badge, name=learner)
        else:
            click.echo("headstart badge take badge.png signs it and writes it into a picture", err=True)
    if as_json:
        print_json({"points": played.points, "badge": played.earns_badge, "challenge": played.id})
