"""Reads and runs the pages: the one convention of their blocks.

A fenced ``console`` block shows commands, each after ``$ ``, and what they print. A fenced ``python`` block
is a program; the blocks of one page share their variables. Both run in the order of the page, in a folder of
their own that `furnish` fills. A block that cannot run has ``<!-- not run: REASON -->`` right above it;
``pip install`` and ``make`` are run nowhere.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from click.testing import CliRunner
from markdown_it import MarkdownIt
from PIL import Image, ImageDraw, ImageFont

from headstart.errors import HeadstartError

ROOT = Path(__file__).parent.parent
CLASSES = {"daisy": "discs", "roses": "squares", "tulips": "bars"}
"""What the photographs' folders are called, and which drawing stands in for each flower."""

SERVERS = {
    "serve": "8422",
    "learn": "8421",
    "class open": "8421",
    "studio": "8423",
    "lesson preview": "8422",
}
"""Commands that go on until Ctrl-C, and the ports where they listen unless told otherwise."""

_NOT_RUN = re.compile(r"<!-- not run: *(.*?) *-->\s*$")
_EXIT = re.compile(r"#\s*exits with (\d+)\s*$")
_BIN = Path(sys.executable).parent
_SHELL = re.compile(r"[|&;<>$`*\\]|^\w+=")
_SERVER_SECONDS = 60


@dataclass(frozen=True)
class Step:
    """One command or one program of a page."""

    page: str
    line: int
    language: str  # "console" or "python"
    text: str
    reason: str | None = None  # why it is not run

    @property
    def exit_code(self) -> int:
        """What a command ends with, where the page shows one that is refused."""
        found = _EXIT.search(self.text)
        return int(found[1]) if found else 0

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.splitlines()[0] if self.text else ''}"


def pages() -> list[str]:
    """Every page with blocks that run."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    built = ROOT / "docs" / "_build"
    return sorted(str(page.relative_to(ROOT)) for page in found if built not in page.parents)


@dataclass(frozen=True)
class Block:
    """One block of code of a page; ``indented`` where it has no fence."""

    line: int
    language: str
    text: str
    indented: bool
    not_run: str | None


def blocks(page: str) -> list[Block]:
    """Every block of code of a page."""
    found, above = [], ""
    for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            line, mark = (token.map or [0])[0] + 1, _NOT_RUN.search(above)
            indented = token.type == "code_block"
            found.append(Block(line, token.info.strip(), token.content, indented, mark and mark[1]))
        above = token.content if token.type == "html_block" else ""
    return found


def steps(page: str) -> list[Step]:
    """What a page tells its readers to run, in order."""
    found: list[Step] = []
    for block in blocks(page):
        if block.language == "python":
            found.append(Step(page, block.line, block.language, block.text, block.not_run))
        elif block.language == "console":
            found += _commands(page, block)
    return found


def _commands(page: str, block: Block) -> list[Step]:
    found: list[Step] = []
    lines = iter(enumerate(block.text.splitlines(), start=block.line + 1))
    for number, line in lines:
        if not line.startswith("$ "):
            continue
        command = line[2:]
        while command.endswith("\\"):
            command = command[:-1] + " " + next(lines)[1].strip()
        reason = "installs" if command.startswith(("pip install", "make ")) else block.not_run
        found.append(Step(page, number, "console", command, reason))
    return found


def furnish(folder: Path, draw: Callable[..., Image.Image]) -> None:
    """The folder in which every page begins: labelled, unlabelled and other photographs, a table, a zip."""
    for name, per_class, seed in (("photos", 14, 0), ("more-photos", 4, 1)):
        for flower, kind in CLASSES.items():
            (folder / name / flower).mkdir(parents=True)
            for number in range(1, per_class + 1):
                picture = draw(kind, seed=1000 * seed + number, side=80)
                picture.save(folder / name / flower / f"{number:03}.jpg", quality=90)
    for digit in "0123456789":
        (folder / "digits" / digit).mkdir(parents=True)
        for number in range(8):
            _written(digit, size=30 + 3 * number).save(folder / "digits" / digit / f"{number:04}.png")
    (folder / "new-photos").mkdir()
    for number, kind in enumerate(CLASSES.values(), start=1):
        draw(kind, seed=3000 + number, side=80).save(folder / "new-photos" / f"{number:03}.jpg", quality=90)
    shutil.copy(folder / "new-photos" / "001.jpg", folder / "flower.jpg")
    listed = sorted((folder / "photos").rglob("*.jpg"))
    rows = [f"{path.relative_to(folder).as_posix()},{path.parent.name}" for path in listed]
    (folder / "photos.csv").write_text("path,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for path in listed:
            archive.write(path, path.relative_to(folder))


def _written(digit: str, *, size: int) -> Image.Image:
    image = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(image).text((32, 32), digit, "white", ImageFont.load_default(size), anchor="mm")
    return image


@dataclass(frozen=True)
class _Server:
    step: Step
    process: "subprocess.Popen[str]"
    port: str


@dataclass
class Reader:
    """Somebody who does what a page says, in the current folder."""

    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__page__"})
    _servers: list["_Server"] = field(default_factory=list)
    _ports: dict[str, str] = field(default_factory=dict)

    def follow(self, step: Step) -> None:
        """Run one step; raises AssertionError with what was printed where it fails."""
        if step.language == "python":
            self._wait()
            exec(compile(self._here(step.text), str(step), "exec"), self.names)
            return
        words = shlex.split(step.text, comments=True)
        server = next((name for name in SERVERS if " ".join(words).startswith(f"headstart {name}")), None)
        if server:
            self._start(step, words, server=server)
            return
        self._wait()
        if words[0] == "headstart" and not _SHELL.search(re.sub(r"\s#.*$", "", step.text)):
            self._headstart(step, words[1:])
        else:
            self._bash(step)

    def leave(self) -> None:
        """Press Ctrl-C in every server that the page started; each must end well."""
        try:
            self._wait()
        finally:
            ended = [(server, *_stopped(server)) for server in self._servers]
            self._servers.clear()
        for server, code, printed in ended:
            assert code in (0, 130, -signal.SIGINT), f"{server.step}\n{printed}"
            assert "Traceback" not in printed, f"{server.step}\n{printed}"

    def _wait(self) -> None:
        """Servers start side by side; what comes after them finds them answering."""
        for server in self._servers:
            _wait_until_it_answers(server)

    def _here(self, text: str) -> str:
        """Addresses of the page's servers become those where they really listen."""
        for written, real in self._ports.items():
            text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{real}")
        return text

    def _headstart(self, step: Step, arguments: list[str]) -> None:
        from headstart.cli import cli

        done = CliRunner().invoke(cli, arguments, catch_exceptions=True)
        # `main` turns our errors into exit codes; where it has no part, they arrive as they are.
        code = done.exception.exit_code if isinstance(done.exception, HeadstartError) else done.exit_code
        assert code == step.exit_code, f"{step}\n{done.output}\n{done.exception!r}"

    def _bash(self, step: Step) -> None:
        environment = {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(step.text)],
            capture_output=True, text=True, env=environment, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == step.exit_code, f"{step}\n{done.stdout}\n{done.stderr}"

    def _start(self, step: Step, words: list[str], *, server: str) -> None:
        port = _free_port()
        if "--port" in words:
            at = words.index("--port") + 1
            written, words[at] = words[at], port
        else:
            written = SERVERS[server]
            words += ["--port", port]
        if server != "serve" and "--no-browser" not in words:
            words.append("--no-browser")
        self._ports[written] = port
        process = subprocess.Popen(
            [_BIN / words[0], *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._servers.append(_Server(step, process, port))


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _wait_until_it_answers(server: _Server) -> None:
    give_up = monotonic() + _SERVER_SECONDS
    while monotonic() < give_up:
        assert server.process.poll() is None, f"{server.step}\n{server.process.communicate()[0]}"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=5).close()
            return
        except urllib.error.HTTPError as answer:
            answer.close()
            return  # an answer, if not a page
        except OSError:
            sleep(0.05)
    raise AssertionError(f"{server.step}\nno answer within {_SERVER_SECONDS} s")


def _stopped(server: _Server) -> tuple[int, str]:
    """The exit code after Ctrl-C, and what the server printed; no server outlives its page."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
    try:
        printed = server.process.communicate(timeout=_SERVER_SECONDS)[0]
    except subprocess.TimeoutExpired:
        server.process.kill()
        printed = server.process.communicate()[0] + "\nCtrl-C did not end it"
    except ValueError:  # its output was read when it was found dead
        printed = ""
    return server.process.returncode, printed
