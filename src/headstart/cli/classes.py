"""`headstart class`: make a class, open it to other machines, erase it."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headstart.cli import lti
from headstart.cli.options import (
    allow_host_option,
    no_browser_option,
    pack_option,
    port_option,
    read_token,
    token_option,
)
from headstart.cli.terminal import json_option, needing, print_json, table, to_stderr

if TYPE_CHECKING:
    from headstart.lesson.engine.classes import Classes
    from headstart.lesson.engine.progress import Progress


@click.group()
def command() -> None:
    """Teach a class: learners join with six letters, the teacher sees who is where.

    \b
    headstart class new "Biology 10b" --roster names.csv
    headstart class open "Biology 10b"           until Ctrl-C; prints addresses and a QR picture
    headstart class list
    headstart class marks "Biology 10b" marks.xlsx
    headstart class token "Biology 10b"          a new token for the teacher's page
    headstart class lti add …                    let Moodle or another platform open it
    headstart class erase "Biology 10b"          its names, codes and tokens
    """


command.add_command(lti.command)


def _classes(store: "Progress") -> "Classes":
    from headstart.files import home_folder, make
    from headstart.lesson.engine.classes import Classes
    from headstart.web.site import load_secret

    return Classes(store, load_secret(make(home_folder())))


@command.command()
@click.argument("name")
@pack_option
@click.option(
    "--roster",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Names, one a line, or CSV with headings: name, id or email, time. Nobody else may join.",
)
@token_option("of the teacher's page")
@json_option
def new(name: str, pack: str | None, roster: Path | None, token_file: Path | None, as_json: bool) -> None:
    """Make a class. Prints the join code and the teacher's token, which is told this once.

    \b
    headstart class new "Biology 10b" --roster names.csv
    """
    from datetime import UTC, datetime

    from headstart.errors import OptionError
    from headstart.files import Unreadable, read_regular
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine import rosters
    from headstart.lesson.engine.progress import Progress

    lesson = library.load_pack(pack)
    rows = []
    if roster:
        try:
            text = read_regular(roster, limit=rosters.LARGEST_ROSTER).decode("utf-8", "replace")
        except Unreadable as error:
            raise OptionError(f"{roster}: {error}") from None
        rows = rosters.roster(text)
    with closing(Progress.open()) as store:
        made = _classes(store)
        one, token = made.create(name, pack=lesson.slug, now=datetime.now(UTC), token=read_token(token_file))
        made.enrol(one, rows, only=bool(rows))
    if as_json:
        print_json({"name": one.name, "code": one.code, "token": token, "listed": len(rows)})
        return
    click.echo(f"{one.name}: learners join with  {one.code}")
    click.echo(f"the teacher's token, told this once:  {token}")
    to_stderr("headstart class open lets them in")


@command.command("open")
@click.argument("name", required=False)
@pack_option
@port_option(8421)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")
@allow_host_option
@no_browser_option
def open_class(
    name: str | None, pack: str | None, port: int, host: str, allow_host: tuple[str, ...], no_browser: bool
) -> None:
    """Serve a class to other machines until Ctrl-C; the teacher's page opens here.

    Other classes of the same lesson can join at the same address.

    \b
    headstart class open "Biology 10b"
    """
    with needing("the lesson in the browser", extra="web"):
        from headstart.lesson.pages import server
    server.serve_class(
        name, pack, also=allow_host, draw=_draw, host=host, port=port, browser=not no_browser, say=to_stderr
    )


def _draw(address: str) -> None:
    """A QR picture of an address, for phones, where somebody sees it."""
    if sys.stderr.isatty():
        import segno

        segno.make(address, micro=False).terminal(out=sys.stderr, compact=True)


@command.command("list")
@json_option
def list_classes(as_json: bool) -> None:
    """List the classes of this home folder.

    \b
    headstart class list
    """
    from headstart.lesson.engine.progress import Progress

    with closing(Progress.open()) as store:
        classes = _classes(store)
        found = [(one, classes.members(one.id)) for one in classes.all()]
    rows = [
        [
            one.name,
            one.pack,
            one.code,
            str(sum(each.joined is not None for each in members)),
            str(len(members)),
        ]
        for one, members in found
    ]
    header = ["class", "lesson", "code", "joined", "listed"]
    if as_json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        click.echo(table(rows, header=header, right=range(3, 5)) if rows else "no class yet")


@command.command("marks")
@click.argument("name", required=False)
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@pack_option
@json_option
def class_marks(name: str | None, file: Path | None, pack: str | None, as_json: bool) -> None:
    """Show the marks of a class, or write them to a .csv or .xlsx file.

    Of each learner the challenge with the most points counts.

    \b
    headstart class marks "Biology 10b" marks.xlsx
    """
    from headstart.files import write_whole
    from headstart.lesson.engine import marks
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine.progress import Progress

    if file is None and name is not None and Path(name).suffix in marks.FORMATS:
        file, name = Path(name), None
    with closing(Progress.open()) as store:
        classes = _classes(store)
        one = classes.named(name)
        members = classes.members(one.id)
        learners = [member.learner for member in members]
        states = store.taken_by(learners, pack=one.pack, mode="challenge")
    lesson = pack or (one.pack if one.pack in library.available() else None)
    asked = library.load_pack(lesson).problems("challenge") if lesson else ()
    problems = [problem.slug for problem in asked] or list(
        dict.fromkeys(item.problem for state in states for item in state.items)
    )
    found = marks.of_class(members, states, problems=problems)
    if file is not None:
        write_whole(file, marks.as_file(found, file.suffix, problems=problems))
        to_stderr(f"marks of {len(found)} learners written to {file}")
        return
    rows = [
        [
            mark.member.shown,
            f"{mark.points} of {mark.possible}" if mark.best else "-",
            f"{mark.best.correct} of {len(mark.best.items)}" if mark.best else "-",
            str(mark.taken),
        ]
        for mark in found
    ]
    header = ["name", "points", "right", "challenges"]
    if as_json:
        print_json([dict(zip(header, row, strict=True)) for row in rows])
    else:
        click.echo(table(rows, header=header, right=range(1, 4)) if rows else "nobody is in the class yet")


@command.command("token")
@click.argument("name", required=False)
@token_option("of the teacher's page")
@json_option
def new_token(name: str | None, token_file: Path | None, as_json: bool) -> None:
    """Make a new token for the teacher's page; the one before no longer counts.

    \b
    headstart class token "Biology 10b"
    """
    from headstart.lesson.engine.progress import Progress

    with closing(Progress.open()) as store:
        classes = _classes(store)
        one = classes.named(name)
        token = classes.new_token(one.id, read_token(token_file))
    if as_json:
        print_json({"name": one.name, "token": token})
    else:
        click.echo(f"{one.name}, the teacher's token, told this once:  {token}")


@command.command()
@click.argument("name")
def erase(name: str) -> None:
    """Erase a class: its names, codes and tokens. What was answered stays in the log, under nobody's name.

    \b
    headstart class erase "Biology 10b"
    """
    from headstart.lesson.engine.progress import Progress

    with closing(Progress.open()) as store:
        classes = _classes(store)
        one = classes.named(name)
        classes.remove(one.id)
    to_stderr(f"{one.name}: erased")
