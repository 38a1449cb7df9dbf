"""`headstart lesson`: make, check and preview lesson packs; move problems; what a log says."""

import os
import sys
from pathlib import Path

import click

from headstart.cli.options import mode_option, no_browser_option, pack_option, port_option
from headstart.cli.terminal import json_option, needing, print_json, table, to_stderr


@click.group()
def command() -> None:
    """Make, check and move lesson packs: Markdown and YAML that anyone can write.

    \b
    headstart lesson new my-lesson
    headstart lesson check my-lesson
    headstart lesson preview my-lesson
    headstart lesson export questions.xml          the challenge, for Moodle
    headstart lesson import questions.gift my-lesson
    headstart lesson statistics                    how hard each problem is, from the log
    """


@command.command()
@click.argument("slug")
def new(slug: str) -> None:
    """Write a small pack that passes the check, to be filled in.

    \b
    headstart lesson new my-lesson
    """
    from headstart.lesson.engine import pack_loading as library

    click.echo(library.new_pack(slug))


@command.command()
@click.argument("folder")
@json_option
def check(folder: str, as_json: bool) -> None:
    """List what breaks the rules for packs, with file and line. What is a warning keeps no pack from opening.

    \b
    headstart lesson check my-lesson
    """
    from headstart.lesson.engine import pack_loading as library

    findings = library.check_pack(folder)
    if as_json:
        print_json([str(finding) for finding in findings])
    elif not findings:
        click.echo(f"{folder}: nothing to mend")
    for finding in [] if as_json else findings:
        click.echo(str(finding))
    if any(not finding.warning for finding in findings):
        sys.exit(2)


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@port_option(8422)
@no_browser_option
def preview(folder: Path, port: int, no_browser: bool) -> None:
    """Show a pack in the browser as a learner sees it; every saved file shows at once.

    \b
    headstart lesson preview my-lesson
    """
    with needing("lessons in the browser", extra="web"):
        from headstart.lesson.pages import preview as pages
    pages.preview(folder, port=port, browser=not no_browser, say=to_stderr)


@command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pack_option
@mode_option
@click.option("--keep", is_flag=True, help="Keep placeholders instead of the numbers measured here.")
def export_problems(file: Path, pack: str | None, mode: str, keep: bool) -> None:
    """Write a mode's problems for other systems: .xml for Moodle, .gift or .txt for GIFT.

    Numbers are those measured on this machine. With --keep the file can be imported again without a loss.

    \b
    headstart lesson export questions.xml
    headstart lesson export questions.gift --pack my-lesson --keep
    """
    from headstart.errors import OptionError
    from headstart.files import write_whole
    from headstart.lesson import experiments
    from headstart.lesson.engine import interchange
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine.gift import to_gift
    from headstart.lesson.engine.moodle import to_moodle_xml
    from headstart.lesson.engine.reference import completed

    ending = file.suffix.lower()
    if ending not in (".xml", ".gift", ".txt"):
        raise OptionError(f"{file}: expected a name that ends in .xml (Moodle), .gift or .txt (GIFT)")
    problems = library.load_pack(pack).problems(mode)
    given = list(problems) if keep else interchange.filled(problems, completed(experiments.results()))
    write = to_moodle_xml if ending == ".xml" else to_gift
    write_whole(file, write(given))
    to_stderr(f"{_counted(len(given))} written to {file}")


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@mode_option
def import_problems(file: Path, folder: Path, mode: str) -> None:
    """Add the questions of a Moodle XML (.xml) or GIFT file to a pack.

    Choices of one or several, true or false, numbers, matchings and orders; others are named and left out.

    \b
    headstart lesson import questions.xml my-lesson
    """
    from headstart.errors import OptionError
    from headstart.lesson.engine import interchange
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine.packlint import PROBLEM_MODES

    if mode not in PROBLEM_MODES:
        raise OptionError(f"--mode {mode!r}: expected one of {', '.join(PROBLEM_MODES)}")
    found = interchange.read_file(file)
    written = interchange.add_to_pack(found.problems, folder, mode=mode)
    to_stderr(f"{_counted(len(found.problems))} added to {written}")
    for reason in found.left_out:
        to_stderr(f"left out: {reason}")
    if missing := len(library.check_pack(folder)):
        to_stderr(f"headstart lesson check {folder} names {missing} things that they still lack")


@command.command()
@pack_option
@mode_option
@json_option
def statistics(pack: str | None, mode: str, as_json: bool) -> None:
    """Show how hard each problem is, how well it tells learners apart, how long it takes.

    Everyone's first challenge counts, in the browser or in the terminal.

    \b
    headstart lesson statistics
    """
    from dataclasses import asdict

    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine import scores
    from headstart.lesson.engine.progress import Progress

    lesson = library.load_pack(pack)
    store = Progress.open()
    taken = [state for state in store.challenges(pack=lesson.slug) if state.mode == mode]
    found = scores.item_statistics(taken)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [
        [
            f"{one.problem}, {one.variant}" if one.variant else one.problem,
            str(one.taken),
            _number(one.facility, "{:.0%}"),
            _number(one.discrimination, "{:+.2f}"),
            _number(one.median_seconds, "{:.0f}"),
            _number(one.hint_share, "{:.0%}"),
        ]
        for one in found
    ]
    header = ["problem", "taken", "right at once", "discrimination", "median seconds", "hint taken"]
    click.echo(table(rows, header=header, right=range(1, 6)) if rows else "nobody has taken it here yet")


def _counted(problems: int) -> str:
    return "1 problem" if problems == 1 else f"{problems} problems"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


@command.command()
@pack_option
@click.option("--learner", metavar="NAME", help="Name of a learner. Default: everyone.")
@click.option("--to", metavar="URL", help="Send them to this learning record store instead.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The store's key and secret in a file, with a colon between. Default: HEADSTART_LRS_KEY.",
)
def log(pack: str | None, learner: str | None, to: str | None, key_file: Path | None) -> None:
    """Print the challenges of a lesson as xAPI statements, one JSON object a line, or send them to a store.

    Statements that the store has already are left as they are there, so the whole log may be sent again.

    \b
    headstart lesson log > statements.jsonl
    headstart lesson log --to https://lrs.example/xapi --key-file lrs.txt
    """
    from headstart.errors import OptionError
    from headstart.files import Unreadable, read_regular
    from headstart.lesson.engine import pack_loading as library
    from headstart.lesson.engine import statements
    from headstart.lesson.engine.progress import Progress

    lesson = library.load_pack(pack)
    store = Progress.open()
    states = store.challenges(learner=learner, pack=lesson.slug)
    if to is None:
        for state in states:
            for line in statements.to_lines(store.entries(state.id)):
                click.echo(line)
        return
    credentials = os.environ.get("HEADSTART_LRS_KEY", "")
    if key_file is not None:
        try:
            credentials = read_regular(key_file, limit=4096).decode().strip()
        except (Unreadable, UnicodeDecodeError) as error:
            raise OptionError(f"{key_file}: {error}") from None
    found = (one for state in states for one in statements.statements(store.entries(state.id)))
    sent = statements.send(found, endpoint=to, credentials=credentials)
    to_stderr(f"{sent} new statements sent")
