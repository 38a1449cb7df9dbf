"""The documentation: what pages tell readers to run does run, and the site builds, whole and offline."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

import docs_pages
import headstart
from conftest import draw, shared_folders
from docs_pages import ROOT, Reader, Step
from headstart.cli import cli
from headstart.training import fit

RUNNABLE = [page for page in docs_pages.pages() if docs_pages.steps(page)]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Path:
    """Where every page begins: photographs, and a run that `headstart fit photos/ --out runs/first` made."""
    root = tmp_path_factory.mktemp("docs")
    with shared_folders(root, compiled_models):
        docs_pages.furnish(root / "work", draw)
        fit("photos", out="runs/first")
    return root


@pytest.fixture
def reader(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody in a fresh copy of that folder; features are shared, so that pages are quick."""
    for name in ("work", "home"):
        shutil.copytree(furnished / name, tmp_path / name)
    monkeypatch.setenv("HEADSTART_CACHE", str(furnished / "cache"))
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    # Commands run in this process, whose age is no part of a budget.
    monkeypatch.setattr("headstart.cli.terminal.process_age", lambda: 0.5)
    monkeypatch.chdir(tmp_path / "work")
    found = Reader()
    yield found
    found.leave()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras under NumPy 2
@pytest.mark.parametrize("page", RUNNABLE)
def test_what_a_page_says_to_run_does_run(page: str, reader: Reader) -> None:
    for step in docs_pages.steps(page):
        if step.reason is None:
            reader.follow(step)


def test_a_failing_command_or_program_fails_the_page(reader: Reader) -> None:
    for language, text in (
        ("console", "headstart fit no-such-folder/"),
        ("console", "headstart fit no-such-folder/ | cat"),
        ("python", "import headstart\nheadstart.fit('no-such-folder')"),
    ):
        with pytest.raises(Exception, match="no-such-folder"):
            reader.follow(Step("page", 1, language, text))


@pytest.mark.parametrize("page", docs_pages.pages())
def test_commands_stand_in_blocks_that_are_run(page: str) -> None:
    for block in docs_pages.blocks(page):
        where = f"{page}:{block.line}"
        shown = re.search(r"^(\$ )?(headstart|pip install|make|python) \S", block.text, re.MULTILINE)
        if block.indented or block.language in ("", "text", "bash", "sh", "shell"):
            assert not shown, f"{where}: put commands into a fenced block `console`, each after `$ `"
        if block.language == "console":
            assert block.text.startswith("$ "), f"{where}: a `console` block begins with `$ ` and a command"
        assert "not run by" not in block.text, f"{where}: say it in a comment above the block"


def test_what_is_not_run_says_why_and_is_the_exception() -> None:
    everything = [step for page in RUNNABLE for step in docs_pages.steps(page)]
    left_out = [step for step in everything if step.reason is not None]
    for step in left_out:
        assert step.reason, f"{step}: say why in the comment above it"
    assert len(left_out) <= len(everything) / 8, "\n".join(map(str, left_out))


def test_numbers_in_the_readme_and_its_picture_were_measured() -> None:
    measured = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = re.findall(r"(?<=\| )\d+\.\d+(?: %)?(?= \|)", shown)
    drawn = re.findall(r"\d+\.\d\d(?= s<)", (ROOT / "docs/pictures/once.svg").read_text(encoding="utf-8"))
    assert len(cells) >= 10 and len(drawn) == 3
    for number in (*cells, *drawn):
        assert f"| {number} |" in measured, number


def test_benchmarks_that_pages_name_exist() -> None:
    for page in docs_pages.pages():
        for script in re.findall(r"\bbenchmarks/\w+\.py", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / script).exists(), f"{page}: {script}"


def test_every_public_name_is_in_the_reference() -> None:
    listed = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    for name in set(headstart.__all__) - {"__version__"}:
        assert f":: headstart.{name}\n" in listed, name


def test_every_environment_variable_of_ours_is_in_the_reference() -> None:
    listed = (ROOT / "docs/reference/environment.md").read_text(encoding="utf-8")
    for source in (ROOT / "src").rglob("*.py"):
        for name in re.findall(r"\bHEADSTART_[A-Z]+\b", source.read_text(encoding="utf-8")):
            assert f"`{name}`" in listed, f"{source.name}: {name}"


class _Page(HTMLParser):
    """What an HTML page loads, where it links to, and what can be linked to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif tag == "a" and name == "href" and value:
                self.links.append(value)
            elif name in ("src", "srcset", "poster", "data") or (tag == "link" and name == "href"):
                self.loads.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of the generator is an error."""
    if importlib.util.find_spec("sphinx") is None:
        pytest.skip("needs headstart[docs]")
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-D", "toc_object_entries=0"]  # which take a third of the time
    build = [sys.executable, "-m", "sphinx", *options, "-b", "html", ROOT / "docs", folder]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_without_a_warning_and_every_link_leads_somewhere(site: Path) -> None:
    found = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(found) > 40
    for path, page in found.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in found:
                assert unquote(parts.fragment) in found[target].anchors, f"{path.relative_to(site)}: {link}"


def test_every_command_is_shown_with_its_usage_and_no_markup_is_left(site: Path) -> None:
    shown = unescape(re.sub(r"<[^>]+>", "", (site / "reference/commands.html").read_text(encoding="utf-8")))
    for verb in cli.list_commands(click.Context(cli)):
        assert f"headstart {verb} [OPTIONS]" in shown, verb
    assert "headstart backbones efficientnet_lite0 --size 96" in shown
    for path in site.rglob("*.html"):
        left = re.search(r"(?m)^(<p>)?\.\. [\w-]+::.*", path.read_text(encoding="utf-8"))
        assert not left, f"{path.relative_to(site)}: {left}"


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        for address in _Page(path.read_text(encoding="utf-8")).loads:
            assert not urlsplit(address).netloc, f"{path.relative_to(site)}: {address}"
    for path in [*site.rglob("*.css"), *site.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        outside = re.search(r"(url\(|@import|import\(|fetch\(|\.src\s*=)\s*[\"']?(https?:)?//", text)
        assert not outside, f"{path.relative_to(site)}: {outside}"
