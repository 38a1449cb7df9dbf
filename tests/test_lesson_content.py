"""What a pack brings to the lesson's pages: pictures, tables, formulas, and problems of every form."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")


from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.pack import FORMS
from headstart.lesson.pages import home
from headstart.lesson.pages.templating import markdown
from lesson_packs import forms_pack, right_answer, wrong_answer
from lesson_worlds import World, lesson_worlds

CAT = Path(home.__file__).parent / "static" / "cat.jpg"


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with lesson_worlds(tmp_path) as make:
        yield make


def test_pictures_and_tables_of_a_pack_are_shown_and_nothing_from_elsewhere(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    folder = library.new_pack("mine", tmp_path)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "cat.jpg").write_bytes(CAT.read_bytes())
    with (folder / "modes" / "learn.md").open("a") as file:
        file.write('\n![A "cat"](pictures/cat.jpg)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n')
    world = make_world(library.load_pack(folder))
    page = world.browser.get("/modes/learn").text
    assert 'src="/pictures/cat.jpg" alt="A &quot;cat&quot;"' in page and "<td>2</td>" in page
    sent = world.browser.get("/pictures/cat.jpg")
    assert sent.content == CAT.read_bytes() and sent.headers["content-type"] == "image/jpeg"
    assert world.browser.get("/pictures/other.jpg").status_code == 404
    assert "<img" not in markdown("![words](https://example.com/a.png) ![w](/static/a.png)", {})


def test_a_formula_becomes_mathml_and_smuggles_nothing() -> None:
    pytest.importorskip("latex2mathml")
    shown = markdown(r"Energy: $E = mc^2$, for $5 or $6, and `$x$`.", {})
    assert "<msup><mi>c</mi><mn>2</mn></msup>" in shown
    assert "$5 or $6" in shown and "<code>$x$</code>" in shown
    for latex in (
        r"\text{<script>x</script>}",
        r"\href{javascript:x}{y}",
        r"\style{color:red}{x}",
        r'\color{"on=x}{y}',
    ):
        made = markdown(f"${latex}$", {})
        assert "<math" in made and not re.search(r"<script|href|style=|color|on=x\"", made), made
    deep = "{" * 499
    assert markdown(f"${deep}$", {}).startswith("<p>"), "what cannot be read is shown as it is"


def test_a_formula_is_code_where_nothing_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert markdown("$a<b$", {}) == "<p><code>a&lt;b</code></p>\n"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_problem_is_answered_without_javascript(
    make_world: Callable[..., World], form: str
) -> None:
    world = make_world(forms_pack())
    challenge = world.begin()
    number = FORMS.index(form) + 1
    shown = world.open(challenge, number).text
    layout = world.site.store.challenge(challenge.rsplit("/", 1)[1]).items[number - 1].layout
    wrong, right = wrong_answer(layout).split(), right_answer(layout).split()
    assert not re.search("SECRET|secretkey", shown)
    assert layout.form == "number" or all(f'value="{piece}"' in shown for piece in right)
    world.post(f"{challenge}/{number}/choose", option=wrong)
    kept = world.browser.get(f"{challenge}/{number}").text
    assert all(re.search(f'value="{re.escape(piece)}" *(checked|selected|>)', kept) for piece in wrong)
    nothing = world.post(f"{challenge}/{number}/submit", option=[""], key="0" * 32).text
    assert "Choose an answer first" in nothing or "That is no number" in nothing
    missed = world.post(f"{challenge}/{number}/submit", option=wrong, key="1" * 32).text
    assert "1 attempt is left" in missed and "SECRETHINT" not in missed
    assert "already" in world.post(f"{challenge}/{number}/submit", option=wrong[::-1], key="2" * 32).text
    done = world.post(f"{challenge}/{number}/submit", option=right[::-1], key="3" * 32).text
    assert "✓ Correct" in done and f"SECRETEXPLANATION {form}" in done and "secretkey" not in done
