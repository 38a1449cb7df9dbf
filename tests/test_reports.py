"""Reports: what a page says, that it needs nothing, and that everybody can read it."""

from __future__ import annotations

import html.parser
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headstart
from browsing import inspector
from conftest import shared_folders, write_photos
from headstart.comparisons import Candidate, Comparison, Trial, choose, compare, grid
from headstart.comparisons.values import disambiguate
from headstart.curation import Corrections
from headstart.data.dataset import read_dataset
from headstart.errors import MissingExtra, OptionError, RunError
from headstart.reports import FORMATS, find, plots, report
from headstart.reports.albums import Album, thumbnail
from headstart.runs import Run, read_predictions

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

FAST = {"backbone": "builtin", "size": 64, "precision": "f32"}


@dataclass(frozen=True)
class Made:
    """One run with mistakes and one comparison, for all tests; and their pages."""

    root: Path
    run: Run
    comparison: Comparison
    run_page: str
    comparison_page: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Made:
    root = tmp_path_factory.mktemp("reports")
    with shared_folders(root, compiled_models):
        photos = write_photos(root / "photos")
        candidates = grid(
            backbones=["builtin"], size=64, heads=("ridge", "softmax"), images=(4, None), epochs=2
        )
        comparison = compare(photos, candidates, seeds=2, precision="f32")
        mislabelled = write_photos(root / "mislabelled")  # so that there are mistakes to show
        for number in range(6):
            one, other = (mislabelled / kind / f"{number:03}.jpg" for kind in ("bars", "discs"))
            kept = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(kept)
        (mislabelled / "discs" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
        _, run = headstart.fit(mislabelled, head="softmax", epochs=3, validation=0.3, **FAST)
        assert (run.accuracy["validation"] or 0) < 1
        return Made(root, run, comparison, report(run).html(), report(comparison).html())


@pytest.fixture
def run(made: Made, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The shared run, to be read; `headstart` knows its id."""
    monkeypatch.setenv("HEADSTART_HOME", str(made.root / "home"))
    monkeypatch.setenv("HEADSTART_CACHE", str(made.root / "cache"))
    return made.run


@pytest.fixture
def own_run(made: Made, tmp_path: Path) -> Run:
    """A copy of its folder, to be changed."""
    return replace(made.run, path=Path(shutil.copytree(made.run.path, tmp_path / "run")))


@pytest.fixture
def comparison(made: Made) -> Comparison:
    return made.comparison


@pytest.fixture
def depths() -> Comparison:
    """Three networks at four depths; two of them are files of one name."""
    trials = []
    for number, name in enumerate(("exp1/best.pth", "exp2/best.pth", "builtin")):
        for depth in (0, 2, 4, 6):
            count = 10 + 4 * number + depth
            made = Candidate(name, 64, depth, 6, head="ridge", epochs=2 if depth < 6 else None)
            for seed in range(2 if made.random else 1):
                right = [0] * (count + seed) + [1] * (40 - count - seed)
                accuracy = (count + seed) / 40
                history = [{"epoch": e, "validation_accuracy": accuracy * e / 2} for e in (1.0, 2.0)]
                trials.append(
                    Trial(
                        made,
                        seed,
                        images=80,
                        predicted=tuple(right),
                        accuracy=accuracy,
                        macro_f1=accuracy,
                        log_loss=0.5,
                        calibration_error=0.1,
                        seconds={"features": 1.0, "train": 7.0 - depth, "evaluate": 0.1},
                        history=tuple(history) if made.random else (),
                    )
                )
    named = dict(zip([t.candidate for t in trials], disambiguate([t.candidate for t in trials]), strict=True))
    found = Comparison(
        id="depths",
        path=None,
        created="now",
        data="photos",
        classes=("yes", "no"),
        images={"train": 80, "validation": 40, "test": 0, "skipped": 0},
        split="abc",
        labels=(0,) * 40,
        trials=tuple(replace(trial, candidate=named[trial.candidate]) for trial in trials),
    )
    return replace(found, choice=choose(found))


class Page(html.parser.HTMLParser):
    """What is in a page: elements with their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_page_refers_to_nothing_outside_and_every_link_leads_somewhere(made: Made) -> None:
    for source in (made.run_page, made.comparison_page):
        page = Page(source)
        ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
        assert len(ids) == len(set(ids))
        for _, attributes in page.elements:
            for name in ("src", "href", "xlink:href"):
                value = attributes.get(name) or "data:"
                assert value.startswith("data:") or value.removeprefix("#") in ids
        assert not page.all("script") and not page.all("iframe")
        assert not re.search(r"url\((?!#)", source)


def test_every_plot_has_a_name_and_a_table_and_every_picture_a_text(made: Made) -> None:
    for source, count in ((made.run_page, 3), (made.comparison_page, 4)):
        page = Page(source)
        figures = page.all("figure")
        assert len(figures) == count and all(figure["aria-label"] for figure in figures)
        sections = [part for part in source.split("<section") if "<figure" in part]
        assert sum(part.count("<figure") for part in sections) == count == len(sections)
        assert all("<table" in part.partition("<figure")[2] for part in sections)
        assert all(image["alt"] for image in page.all("img"))
        assert len(page.all("h1")) == 1


def test_plots_take_their_colours_from_the_page(made: Made) -> None:
    svgs = re.findall(r"<svg.*?</svg>", made.run_page, flags=re.S)
    assert len(svgs) == 3
    for svg in svgs:
        assert "var(--ink)" in svg and "<text" in svg
        assert not re.findall(r"(?:fill|stroke): ?#", svg)


def test_the_confusion_matrix_leads_to_the_images_behind_a_cell(made: Made, run: Run) -> None:
    facts = report(run).facts
    wrong = [
        e
        for e in read_predictions(run.path)["images"]
        if e["split"] == "validation" and e["label"] != e["predicted"]
    ]
    assert sum(found["count"] for found in facts["confusions"]) == len(wrong) > 0
    page = Page(made.run_page)
    links = {attributes["href"] for attributes in page.all("a")}
    for found in facts["confusions"]:
        assert f"#{found['cell']}" in links
        assert {image["path"] for image in found["images"]} <= {entry["path"] for entry in wrong}
    probabilities = [image["probability"] for image in facts["mistakes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert any((image["src"] or "").startswith("data:image/jpeg") for image in page.all("img"))


def test_the_page_of_a_run_says_what_happened_and_how_to_repeat_it(made: Made, run: Run) -> None:
    text = Page(made.run_page).text
    for expected in (f"{run.accuracy['validation']:.1%}", "broken.jpg", "precision", "calibration error"):
        assert expected in text
    words = report(run).facts["command"].split()
    assert words[:2] == ["headstart", "fit"] and Path(words[2]).is_dir()
    done = subprocess.run(
        [Path(sys.executable).with_name("headstart"), *words[1:], "--out", "again", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["accuracy"] == dict(run.accuracy)


def test_calibration_bins_hold_every_test_image_once(run: Run) -> None:
    facts = report(run).facts
    assert facts["calibration_split"] == "test"
    assert sum(found["images"] for found in facts["calibration"]) == run.images["test"]
    mean = sum(found["images"] * found["accuracy"] for found in facts["calibration"])
    assert mean / run.images["test"] == pytest.approx(run.accuracy["test"])
    assert facts["calibration_error"] == run.evaluation["test"]["calibration_error"]


def test_calibration_on_images_that_chose_the_temperature_says_so(run: Run) -> None:
    kept = {**run.evaluation, "test": None}
    fine_tuned = replace(run, evaluation=kept, config=replace(run.config, depth=5))
    assert report(fine_tuned).facts["calibration_split"] == "validation"
    assert "so it flatters" in report(fine_tuned).html() and "so it flatters" in report(fine_tuned).markdown()
    assert "so it flatters" not in report(replace(run, evaluation=kept)).html()


def test_a_long_list_of_files_left_out_says_how_many_more(own_run: Run) -> None:
    left_out = [{"path": f"{n}.jpg", "reason": "cut short"} for n in range(205)]
    (own_run.path / "skipped.json").write_text(json.dumps(left_out))
    assert "5 more are in the JSON report" in Page(report(own_run).html()).text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_report_on_folders_that_are_no_utf8_is_written(photos: Path, tmp_path: Path) -> None:
    source = photos.rename(photos.with_name(os.fsdecode(b"\xfc")))
    _, run = headstart.fit(source, out=tmp_path / os.fsdecode(b"r\xff"), **FAST)
    (run.path / "predictions.json").unlink()
    for suffix in FORMATS:
        assert report(run).write(tmp_path / f"a{suffix}").stat().st_size


def test_a_table_is_repeated_as_the_table_and_with_its_corrections(photos: Path, tmp_path: Path) -> None:
    table = photos / "some.csv"
    rows = [f"{file.relative_to(photos)},{file.parent.name}" for file in sorted(photos.glob("*/*.jpg"))]
    table.write_text("\n".join(["path,label", *rows]))
    corrections = Corrections(tmp_path / "log.jsonl")
    corrections.add(photos / "bars" / "000.jpg", None)
    _, run = headstart.fit(corrections.apply(read_dataset(table)), class_weights="balanced", views=2, **FAST)
    command = report(run).facts["command"]
    assert command.startswith(f"headstart fit {table} ") and command.endswith(
        f"--corrections {corrections.file}"
    )
    assert "--views flip" in command and "--class-weights balanced" in command
    assert not report(run).facts["unrepeated"]
    cut = replace(run, notes=(*run.notes, "budget 5.0 s: 20 of 60 images"))
    assert "which the command does not" in Page(report(cut).html()).text


def test_a_run_of_an_earlier_version_is_repeated_from_where_its_images_lie(photos: Path) -> None:
    _, run = headstart.fit(photos, **FAST)
    record = json.loads((run.path / "run.json").read_text())
    del record["source"], record["corrections"]
    (run.path / "run.json").write_text(json.dumps(record))
    assert report(find(run.path)).facts["command"].startswith(f"headstart fit {photos} ")


def test_the_prediction_of_the_plan_is_set_against_what_it_took(own_run: Run) -> None:
    run = own_run
    record = json.loads((run.path / "run.json").read_text())
    expected = {"low": 0.001, "median": 0.002, "high": 0.003}
    (run.path / "run.json").write_text(json.dumps({**record, "predicted_seconds": expected}))
    assert "which was wrong" in report(find(run.path)).markdown()
    expected["high"] = 1e6
    (run.path / "run.json").write_text(json.dumps({**record, "predicted_seconds": expected}))
    assert "which holds" in report(find(run.path)).markdown()


def test_each_phase_is_set_against_what_was_predicted_of_it(own_run: Run) -> None:
    run = own_run
    record = json.loads((run.path / "run.json").read_text())
    phases = {**record["predicted_phases"], "train": 123.25}
    (run.path / "run.json").write_text(json.dumps({**record, "predicted_phases": phases}))
    made = report(find(run.path))
    assert "123.25" in Page(made.html()).text and "| 123.25 |" in made.markdown()
    (run.path / "run.json").write_text(json.dumps({**record, "predicted_phases": {}}))  # an earlier version
    assert {row["predicted"] for row in report(find(run.path)).facts["phases"]} == {None}
    assert ">Time<" in report(find(run.path)).html()


def test_the_tables_of_a_comparison_have_every_point_of_its_plots(made: Made) -> None:
    facts, markdown = report(made.comparison).facts, report(made.comparison).markdown()
    text = Page(made.comparison_page).text
    points = [point for found in facts["time_to_accuracy"] for point in found["points"]]
    assert len(points) > len(facts["time_to_accuracy"])
    for seconds, accuracy in points:
        assert f"{seconds:.2f}{accuracy:.1%}" in text
        assert f"| {seconds:.2f} | {accuracy:.1%} |" in markdown
    spread = next(row["spread"] for found in facts["by_images"] for row in found["points"])
    assert f"{spread[0]:.1%} to {spread[1]:.1%}" in text
    assert "s in all, predicted" in text and "s in all, predicted" in markdown


def test_the_page_of_a_comparison_says_what_to_take_and_what_was_not_told_apart(made: Made) -> None:
    told, choice = report(made.comparison), made.comparison.choice
    assert choice is not None
    text = Page(made.comparison_page).text
    assert f"Take {choice.candidate.name}" in text and choice.command in text
    assert told.facts["by_images"]
    assert {row["name"] for row in told.facts["rows"]} == {c.name for c in made.comparison.candidates}
    assert choice.candidate.name in told.markdown()


def test_a_comparison_without_a_choice_calls_none_so_and_says_why(photos: Path) -> None:
    made = report(
        compare(photos, grid(backbones=["builtin"], size=64, images=(1, 4)), seeds=1, precision="f32")
    )
    assert not any(row["chosen"] for row in made.facts["rows"]) and not made.facts["differences"]
    for text in (Page(made.html()).text, made.markdown()):
        assert "No candidate was trained on all images" in text
        assert "(the choice)" not in text and "1 image a class" in text


def test_a_plot_of_depths_tells_every_network_and_depth(depths: Comparison) -> None:
    made = report(depths)
    names = [f"best 64 px ({name}/best.pth)" for name in ("exp1", "exp2")] + ["builtin 64 px"]
    assert sorted(found["name"] for found in made.facts["by_depth"]) == sorted(names)
    assert [len(found["points"]) for found in made.facts["by_depth"]] == [4, 4, 4]
    source = made.html()
    assert source.count('aria-label="Accuracy against frozen depth. ') == 1
    part = Page(source.partition("How much to freeze")[2]).text
    for found in made.facts["by_depth"]:
        for row in found["points"]:
            assert f"{found['name']}{row['frozen']}80{row['accuracy']:.1%}" in part
            assert f"| {found['name']} | {row['frozen']} | 80 |" in made.markdown()
    assert len({row["name"] for row in made.facts["rows"]}) == 12


def test_ticks_of_an_accuracy_are_as_far_apart_as_they_say() -> None:
    for accuracies in ((0.39, 0.44), (0.70, 0.83), (0.2, 0.95)):
        points = [
            {"images": count, "accuracy": accuracy, "spread": [accuracy - 0.05, accuracy + 0.04], "trials": 2}
            for count, accuracy in zip((5, 15), accuracies, strict=True)
        ]
        source = plots.by_images([{"name": "builtin", "points": points}], styles={"builtin": 0})
        ticks = sorted(int(found) for found in re.findall(r"(\d+)%<", source))
        assert len(ticks) > 2 and len({high - low for low, high in itertools.pairwise(ticks)}) == 1


def test_no_two_of_many_series_look_alike() -> None:
    looks = {(n % len(plots._SERIES), n % len(plots._MARKERS), n % len(plots._DASHES)) for n in range(60)}
    assert len(looks) == 60


def test_colours_of_plots_stand_out_from_the_page_in_light_and_in_dark() -> None:
    styles = (Path(plots.__file__).parent / "templates" / "base.html").read_text()
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in styles.split("@media screen")]
    for theme in themes:
        paper = _luminance(theme["paper"])
        for name in ("ink", "muted", *(f"series-{n}" for n in range(1, 7))):
            low, high = sorted((paper, _luminance(theme[name])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_an_interval_that_leaves_the_seeds_out_says_so(depths: Comparison) -> None:
    once = replace(depths, trials=tuple(trial for trial in depths.trials if trial.seed == 0))
    for thing, said in ((depths, False), (once, True)):
        made = report(thing)
        assert ("one seed, so the interval leaves out" in made.html()) == said
        assert ("one seed, so the interval leaves out" in made.markdown()) == said


def test_names_with_markup_in_them_are_shown_not_run(photos: Path) -> None:
    (photos / "discs").rename(photos / "<script>alert(1)<")
    _, run = headstart.fit(photos, **FAST)
    source = report(run).html()
    assert "<script" not in source and "&lt;script&gt;" in source


def test_a_picture_that_changed_since_is_not_shown(run: Run, tmp_path: Path) -> None:
    entry = read_predictions(run.path)["images"][0]
    entry["file"] = shutil.copy(entry["file"], tmp_path)
    assert (thumbnail(entry) or "").startswith("data:image/jpeg")
    assert Album(most=0).picture(entry) is None
    other = read_predictions(run.path)["images"][1]
    shutil.copy(other["file"], entry["file"])
    assert thumbnail(entry) is None
    Path(entry["file"]).unlink()
    assert thumbnail(entry) is None and thumbnail({"path": "array", "content": ""}) is None


def test_a_run_without_predictions_still_has_a_report(own_run: Run) -> None:
    (own_run.path / "predictions.json").unlink()
    page = Page(report(own_run).html())
    assert "no pictures" in page.text and not page.all("img")


def test_pictures_come_out_of_a_zip(photos: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    _, run = headstart.fit(archive, **FAST)
    entry = read_predictions(run.path)["images"][0]
    assert entry["member"] and (thumbnail(entry) or "").startswith("data:image/jpeg")


def test_the_suffix_decides_the_format(run: Run, tmp_path: Path) -> None:
    made = report(run)
    assert made.write(tmp_path / "new" / "a.html").read_text().startswith("<!doctype html>")
    assert made.write(tmp_path / "a.md").read_text().startswith("# ")
    assert json.loads(made.write(tmp_path / "a.json").read_text())["id"] == run.id
    with pytest.raises(OptionError, match=r"\.html, \.md, \.json"):
        made.write(tmp_path / "a.pdf")


def test_find_tells_runs_and_comparisons_apart(
    made: Made, run: Run, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.root / "work")  # where comparisons are looked for
    assert isinstance(find(run.id), Run) and isinstance(find(run.path), Run)
    assert isinstance(find(comparison.id), Comparison)
    assert isinstance(find(comparison.path or ""), Comparison)
    with pytest.raises(RunError, match="nothing-such"):
        find("nothing-such")


def test_without_the_extra_a_page_is_refused_and_markdown_is_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"headstart\[report\]"):
        report(run).html()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"headstart\[report\]"):
        report(run).html()
    assert report(run).markdown()


def test_the_command_writes_a_page_without_loading_a_network(run: Run) -> None:
    code = (
        "import sys; sys.argv = ['headstart', 'report', sys.argv[1]]\n"
        "from headstart.cli import main\n"
        "main()\n"
        "print(sorted({'torch', 'timm', 'openvino', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, run.id], capture_output=True, text=True, check=True)
    written, loaded = done.stdout.splitlines()
    assert Path(written) == run.path / "report.html" and Path(written).stat().st_size > 10_000
    assert loaded == "[]"


def test_heat_maps_of_mistakes_are_on_the_page_when_asked_for(made: Made, run: Run) -> None:
    told = "glows where the evidence"
    assert report(run).facts["mistakes"], "the run of these tests makes mistakes"
    assert told not in made.run_page and told in report(run).html(explain=True)


# --- in a browser


def test_the_pages_pass_axe_in_light_and_dark_on_a_desk_and_a_phone(
    run: Run, comparison: Comparison, depths: Comparison, tmp_path: Path, browser: Browser
) -> None:
    things = (run, comparison, depths)
    pages = [report(thing).write(tmp_path / f"{thing.id}.html", explain=True) for thing in things]
    assert "what spoke for" in pages[0].read_text() and "How much to freeze" in pages[2].read_text()
    problems: list[str] = []
    requests: list[str] = []
    # The content policy is put aside for axe, which is put into the page; the page has no script of its own.
    context = browser.new_context(offline=True, bypass_csp=True)
    tab = context.new_page()
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    found, check = inspector(tab)
    for path in pages:
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        check(path.name)
    context.close()
    assert problems == found == []
    outside = {url for url in requests if not url.startswith(("data:", "file:"))}
    assert not outside
