"""Lesson packs: loading, the linter's rules, placeholders."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import LessonError
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine import packlint, placeholders, sources
from headstart.lesson.engine.pack import FORMS, KINDS, Goal, prose_lines
from headstart.lesson.engine.reference import references
from headstart.lesson.engine.sources import YamlFile, read_sources
from headstart.lesson.experiments.programs import PROGRAM

HEAD, PAGE, ASKED = "pack.yaml", "modes/learn.md", "problems/challenge.yaml"
RIGHT = "Why it is right."

SECOND = "can-you-trust-that-accuracy"

ISSUE_EXPERIMENTS = {
    "pretrained-vs-scratch",
    "images-needed",
    "five-images-one-epoch",
    "model-choice",
    "freeze-depth",
    "accuracy-against-time",
    "one-pass",
    "batchnorm",
    "taps",
    "calibration",
    "smallest-example",
    "gradients-way",
    "wrong-preparation",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return library.new_pack("my-pack", tmp_path)


def edit(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text()
    assert old in text, f"the skeleton no longer holds {old!r}"
    path.write_text(text.replace(old, new))


def test_every_bundled_pack_keeps_the_rules() -> None:
    assert library.available()
    for slug in library.available():
        assert library.check_pack(slug) == []


def test_the_bundled_lesson_has_nine_modes_five_problems_and_all_experiments() -> None:
    pack = library.load_pack()
    assert [mode.name for mode in pack.modes] == [
        "learn", "why", "deep", "visualize", "try", "challenge", "project", "metrics", "review",
    ]  # fmt: skip
    assert [mode.minutes for mode in pack.modes] == [5, 3, 15, 12, 10, 20, 20, 8, 5]
    assert set(pack.experiments) == ISSUE_EXPERIMENTS
    problems = pack.problems("challenge")
    assert [(problem.kind, problem.level) for problem in problems] == [
        ("conceptual", "intermediate"),
        ("predict-the-output", "intermediate"),
        ("model-choice", "advanced"),
        ("hyperparameter", "advanced"),
        ("metrics", "expert"),
    ]
    assert all(len(problem.options) == 4 and problem.seconds == 120 for problem in problems)
    assert {option.text for option in problems[1].options} == {"0.20", "0.00", "1.00", "0.50"}
    assert [face.label for face in problems[1].code] == ["Keras", "Headstart"]
    assert len(pack.tasks) == 5 and pack.project is not None and len(pack.project.hints) == 3
    assert len(pack.problems("visualize")) == 3
    assert pack.badge.title == "Pre-trained Model Master"


def test_the_second_lesson_is_whole_and_its_five_problems_are_of_five_forms() -> None:
    pack = library.load_pack(SECOND)
    assert [mode.name for mode in pack.modes] == [mode.name for mode in library.load_pack().modes]
    problems = pack.problems("challenge")
    assert [problem.form for problem in problems] == ["one", "several", "number", "order", "match"]
    assert {problem.kind for problem in problems} == set(KINDS)
    assert {problem.experiment for problem in problems} == set(pack.experiments)
    assert len(pack.tasks) == 5 and pack.project is not None and len(pack.cards) >= 8
    for problem in (each for one in problems for each in one.each()):
        assert problem.hint and problem.explanation and all(one.feedback for one in problem.options)
    assert all(set(one.fields) <= set(references()[name].values) for name, one in pack.experiments.items())


def test_the_second_lessons_program_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    problem = library.load_pack(SECOND).problem("challenge", "how-far-apart")
    exec(compile(problem.code[0].text, "program", "exec"), {})
    assert abs(float(capsys.readouterr().out) - float(problem.answer.text)) <= problem.answer.tolerance


def test_every_experiment_backs_something_in_the_lesson() -> None:
    pack = library.load_pack()
    found = [one for mode in pack.modes for one in placeholders.find(mode.body) if one.kind != "panel"]
    named = {one.experiment for one in found}
    named |= {problem.experiment for problems in pack.problem_sets.values() for problem in problems}
    assert named == ISSUE_EXPERIMENTS


def test_the_lessons_programs_compile() -> None:
    pack = library.load_pack()
    for problem in itertools.chain.from_iterable(one.each() for one in pack.problems("challenge")):
        for face in problem.code:
            compile(face.text, problem.slug, "exec")


@pytest.mark.parametrize("slug", library.available())
def test_the_right_option_of_a_challenge_does_not_stand_out_as_the_longest(slug: str) -> None:
    asked = (each for problem in library.load_pack(slug).problems("challenge") for each in problem.each())
    for problem in (each for each in asked if each.form == "one"):
        words = {option.key: len(option.text.split()) for option in problem.options}
        longest_wrong = max(count for key, count in words.items() if key != problem.answer.key)
        assert words[problem.answer.key] <= longest_wrong, (problem.slug, words)


@pytest.mark.parametrize("slug", library.available())
def test_every_problem_of_the_challenge_has_three_variants_and_the_challenge_every_form(slug: str) -> None:
    problems = library.load_pack(slug).problems("challenge")
    assert all(len(problem.each()) >= 3 for problem in problems)
    assert {each.form for problem in problems for each in problem.each()} == set(FORMS)
    for problem in problems:
        texts = [(each.prompt, each.form) for each in problem.each()]
        assert len(set(texts)) == len(texts), "a variant asks something else, or in another way"


def test_no_task_is_done_before_a_control_has_been_moved() -> None:
    """A goal that compares parameters is missed with the values that a task starts from."""
    task = next(task for task in library.load_pack().tasks if task.slug == "few-images")
    start = task.controls[0].start
    result = {"few": start, "many": 40.0, "accuracy_pretrained_few": 100.0, "accuracy_scratch_many": 0.0}
    assert not task.reached(result) and task.reached({**result, "few": 10.0})


def test_headstarts_face_of_the_program_runs_as_copied(capsys: pytest.CaptureFixture[str]) -> None:
    program = library.load_pack().problem("challenge", "what-does-it-print").code[1].text
    assert "mobilenetv2_100" in program
    exec(compile(program.replace("mobilenetv2_100", "builtin"), "program", "exec"), {})
    assert capsys.readouterr().out.strip() in {"0.00", "0.20", "0.40", "0.60", "0.80", "1.00"}


def test_the_keras_face_of_the_program_runs_as_copied_but_for_the_download() -> None:
    if find_spec("keras") is None:  # importing TensorFlow here would abort PyTorch's compiler later on
        pytest.skip("needs headstart[keras]")
    program = library.load_pack().problem("challenge", "what-does-it-print").code[0].text
    assert 'weights="imagenet"' in program
    offline = program.replace('weights="imagenet"', "weights=None")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", offline], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in {"0.00", "0.20", "0.40", "0.60", "0.80", "1.00"}


def test_the_learn_pages_example_runs_as_copied(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = library.load_pack().mode("learn").body
    (program,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    assert program == PROGRAM, "what the experiment runs is what the page shows"
    exec(compile(program.replace("photos/", str(photos)), "learn.md", "exec"), {})
    accuracy, *predictions = capsys.readouterr().out.splitlines()
    assert 0.0 <= float(accuracy) <= 1.0 and len(predictions) == 48
    assert {line.split()[0] for line in predictions} <= {"bars", "discs", "squares"}


def test_a_headline_quotes_fields_that_the_pack_declares(tmp_path: Path) -> None:
    folder = library.new_pack("mine", tmp_path)
    head = folder / "pack.yaml"
    text = head.read_text()
    for field, wrong in (("ratio", 0), ("seconds", 1)):
        number = f'"{{{{ experiment:pretrained-vs-scratch.{field} }}}}"'
        head.write_text(f"{text}headline:\n  - {{number: {number}, label: times as long}}\n")
        assert len(library.check_pack(folder)) == wrong
    assert "declares no field 'seconds'" in str(library.check_pack(folder)[0])


def test_a_panel_stands_alone_and_is_one_that_there_is(tmp_path: Path) -> None:
    folder = library.new_pack("mine", tmp_path)
    learn, challenge = folder / "modes" / "learn.md", folder / "problems" / "challenge.yaml"
    text = learn.read_text()
    learn.write_text(f"{text}\n{{{{ panel:questions }}}}\n")
    assert library.check_pack(folder) == []
    learn.write_text(f"{text}\nSee {{{{ panel:runs }}}}\n\n{{{{ panel:kitchen }}}}\n")
    challenge.write_text(challenge.read_text().replace("What do you ask?", '"{{ panel:runs }}"'))
    said = [str(finding) for finding in library.check_pack(folder)]
    assert len(said) == 3 and "no panel 'kitchen'; there are picture, runs" in " ".join(said)
    assert sum("on a line of its own" in one for one in said) == 2


def test_a_text_is_cut_at_its_panels() -> None:
    text = "one\n\n  {{ panel:runs }}\n\ntwo {{ claim:layers }}\n{{ panel:scores }}"
    assert placeholders.panels(text) == [
        "one\n",
        ("panel", "runs"),
        "\ntwo {{ claim:layers }}",
        ("panel", "scores"),
    ]
    assert placeholders.fill("a\n{{ panel:runs }}\nb", {}) == "a\n\nb"


def test_a_task_gives_its_hints_one_by_one_and_its_solution_at_the_end() -> None:
    task = library.load_pack().tasks[0]
    for taken in range(3):
        text = json.dumps(task.public_view(hints_taken=taken))
        assert [hint in text for hint in task.hints] == [number < taken for number in range(2)]
        assert task.solution not in text and task.mistakes[0] not in text
    done = task.public_view(done=True)
    assert done["solution"] == task.solution and done["hints"] == list(task.hints)


def test_controls_take_only_their_own_values() -> None:
    pack = library.load_pack()
    choice, slider = pack.tasks[0].controls
    assert choice.accepts("random weights") and not choice.accepts("other") and not choice.accepts(3)
    assert slider.accepts(1) and slider.accepts(20) and not slider.accepts(21) and not slider.accepts("5")


def test_a_new_pack_passes_the_check_and_loads(folder: Path) -> None:
    assert library.check_pack(folder) == []
    assert library.load_pack(folder).problems("challenge")[0].answer.key == "right"


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (HEAD, "minutes: 5", "minutes: 0", "yaml:7 (modes[0].minutes): 0 is not between 1 and"),
        (HEAD, "name: learn", "name: lern", "'lern' is not one of learn"),
        (HEAD, "subject: Computer Vision\n", "", "'subject' is missing"),
        (HEAD, "track: ML", "track: ML\ntrack: ML", "pack.yaml:5 (track): written twice"),
        (HEAD, "title: A", "title: [A", "pack.yaml:3: not valid YAML"),
        (ASKED, "correct: true, ", "", "expected exactly one correct option, got 0"),
        (ASKED, "key: tempting,", "key: tempting, correct: true,", "correct option, got 2"),
        (ASKED, ", feedback: Why it is right.", "", "options[0]): warning: no feedback"),
        (ASKED, "hint: A push", "hint: ''\n    hind: A push", "(problems[0].hint): empty"),
        (ASKED, "hint: A push", "hind: A push", "(problems[0].hind): unknown key"),
        (ASKED, "kind: conceptual", "kind: trivia", "'trivia' is not one of conceptual"),
        (ASKED, "level: intermediate", "level: 3", "expected text, got a whole number"),
        (ASKED, "experiment: pretr", "experiment: petr", "no experiment 'petrained-vs-scratch'"),
        (ASKED, RIGHT, "Option B forgets this.", "warning: 'Option B' reads like an option's"),
        (ASKED, RIGHT, "Unlike (c) it holds.", "warning: '(c)' reads like an option's"),
        (ASKED, RIGHT, "As in B it holds.", "warning: 'B' reads like"),
        (ASKED, RIGHT, "It is 10x faster.", "warning: '10x faster' looks"),
        (ASKED, "key: tempting", "key: right", "two options have the same key"),
        (ASKED, "kind: conceptual", "kind: conceptual\n    form: number", "'The right answer.' is no number"),
        (ASKED, "kind: conceptual", "kind: conceptual\n    form: match", "needs what it 'matches'"),
        (ASKED, "kind: conceptual", "kind: conceptual\n    form: order", "'correct' says nothing about"),
        (ASKED, "kind: conceptual", "kind: conceptual\n    form: rank", "'rank' is not one of one, several"),
        (ASKED, "key: tempting,", "key: tempting, tolerance: 1, ", "'tolerance' belongs to form: number"),
        (ASKED, "hint: A", "variants: [{variant: first}]\n    hint: A", "two variants have the same name"),
        (ASKED, "hint: A", "variants: [{variant: b, level: 3}]\n    hint: A", "level): expected text"),
        (PAGE, "faster. {{ claim:pretrained-vs-scratch }}", "faster.", "learn.md:3: warning: 'faster' makes"),
        (PAGE, "claim:pretrained-vs-scratch", "claim:elsewhere", "no experiment 'elsewhere'"),
        (PAGE, "scratch.ratio", "scratch.rate", "declares no field 'rate'"),
        (PAGE, "scratch.ratio }}", "scratch.ratio }", "is no placeholder"),
        (PAGE, "the ratio was", "it took 12 seconds against", "md:6: warning: '12 seconds' looks"),
        (PAGE, "## The idea", "The idea", "at least one '## ' heading"),
    ],
)  # fmt: skip
def test_a_breach_is_named_with_its_file_and_place(
    folder: Path, name: str, old: str, new: str, expected: str
) -> None:
    edit(folder, name, old, new)
    findings = [str(finding) for finding in library.check_pack(folder)]
    assert any(expected in finding and finding.startswith(name) for finding in findings), findings
    if all("warning" in finding for finding in findings):
        assert library.load_pack(folder), "what may be meant so does not keep a pack from opening"
        return
    with pytest.raises(LessonError, match="my-pack"):
        library.load_pack(folder)


def test_code_shapes_and_named_models_are_no_letters(folder: Path) -> None:
    edit(
        folder,
        "problems/challenge.yaml",
        "Why it is right.",
        "'Model B gives `[N, C]`. A model is a function.'",
    )
    edit(folder, "modes/learn.md", "Say it", "```text\nOption B took 12 seconds, faster\n```\n\nSay it")
    assert library.check_pack(folder) == []


def test_a_missing_mode_page_and_a_stray_file_are_found(folder: Path) -> None:
    (folder / "modes/learn.md").rename(folder / "modes/deep.md")
    (folder / "extra.yaml").write_text("a: 1\n")
    findings = "\n".join(map(str, library.check_pack(folder)))
    assert "modes/learn.md is missing" in findings
    assert "modes/deep.md: belongs to no mode" in findings
    assert "extra.yaml" in findings


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LessonError, match=r"expected a folder with a pack\.yaml"):
        library.load_pack(tmp_path)
    with pytest.raises(LessonError, match="why-pretrained-models-save-time"):
        library.load_pack("no-such-lesson")
    with pytest.raises(LessonError, match="small letters"):
        library.new_pack("../escape", tmp_path)


def test_a_new_pack_overwrites_nothing(folder: Path) -> None:
    with pytest.raises(LessonError, match="exists already"):
        library.new_pack("my-pack", folder.parent)


def test_the_fingerprint_follows_the_content(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "my-pack"
    shutil.copytree(folder, copy)
    before = library.load_pack(folder).fingerprint
    assert library.load_pack(copy).fingerprint == before
    edit(copy, "problems/challenge.yaml", "What do you ask?", "What else?")
    assert library.load_pack(copy).fingerprint != before


VALUES = st.sampled_from([None, True, -1, 10**9, 0.5, "", "x", "Option B", [], {}, [{}], [1], {"a": 1}])


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_whatever_a_pack_holds_the_check_answers_with_findings(data: st.DataObject) -> None:
    """Any value is replaced or removed: the check must not crash, and gives a pack or says why not."""
    original = BUNDLED_SOURCES
    name = data.draw(st.sampled_from(sorted(original.yaml)))
    content = copy.deepcopy(original.yaml[name].data)
    place = content
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.integers(0, 2)) == 0:
            break
        place = place[key]
    if data.draw(st.booleans()):
        place[key] = data.draw(VALUES)
    else:
        del place[key]
    changed = dataclasses.replace(original, yaml={**original.yaml, name: YamlFile(name, content)})
    pack, findings = packlint.check(changed)
    assert (pack is None) == any(not finding.warning for finding in findings)


BUNDLED_SOURCES = read_sources(library.BUNDLED / library.DEFAULT)


def test_yaml_without_its_c_part_is_read_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder, ASKED, "correct: true, ", "")
    found = library.check_pack(folder)
    monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    assert library.check_pack(folder) == found != []
    (folder / "cards.yaml").write_text("a: &a [x]\nb: [*a]\n")
    assert str(library.check_pack(folder)[0]) == "cards.yaml:2: aliases are not accepted"


@pytest.mark.parametrize("text", ["a: &a [x, x]\nb: [*a, *a]\n", "[" * 5000, "a: &a [*a]\n"])
def test_a_yaml_bomb_is_refused_and_not_unfolded(folder: Path, text: str) -> None:
    (folder / "cards.yaml").write_text(text)
    assert [finding.file for finding in library.check_pack(folder)] == ["cards.yaml"]


@pytest.mark.parametrize("text", ["a" + " \t" * 25_000 + "b", "{{ " * 20_000, "a\n" * 50_000, "`" * 50_000])
def test_prose_that_was_made_to_cost_costs_what_its_length_says(folder: Path, text: str) -> None:
    with (folder / "modes" / "learn.md").open("a") as file:
        file.write("\n" + text)
    begun = time.process_time()
    library.check_pack(folder)
    placeholders.fill(text, {})
    assert time.process_time() - begun < 5, "quadratic time would be minutes"


def test_a_picture_is_decoded_and_one_that_is_shown_is_there_and_has_words(folder: Path) -> None:
    place = folder / "pictures"
    place.mkdir()
    Image.new("RGB", (4, 3), "red").save(place / "red.png")
    with (folder / PAGE).open("a") as page:
        page.write("\n![A red field](pictures/red.png) and `![](code.png)`\n")
    assert library.check_pack(folder) == []
    pack = library.load_pack(folder)
    assert pack.pictures["pictures/red.png"].media_type == "image/png"
    Image.new("RGB", (4, 3), "blue").save(place / "red.png")
    assert library.load_pack(folder).fingerprint != pack.fingerprint
    edit(folder, ASKED, "What do you ask?", "'![](pictures/none.png) ![x](https://example.com/a.png)'")
    (place / "unused.png").write_bytes((place / "red.png").read_bytes())
    assert sorted(map(str, library.check_pack(folder))) == [
        "pictures/unused.png: warning: no text shows this picture",
        "problems/challenge.yaml:7: no picture 'https://example.com/a.png' in the pack's pictures/",
        "problems/challenge.yaml:7: no picture 'pictures/none.png' in the pack's pictures/",
        "problems/challenge.yaml:7: warning: a picture without words; write in the brackets what it shows",
    ]
    (folder.parent / "outside.png").write_bytes((place / "red.png").read_bytes())
    (place / "out.png").symlink_to(folder.parent / "outside.png")
    (place / "text.png").write_text("<svg onload=alert(1)>")
    (place / "Big Name.png").write_bytes(b"")
    said = {finding.file: finding.message for finding in library.check_pack(folder)}
    assert "expected a name" in said["pictures/Big Name.png"] and "SVG" in said["pictures/text.png"]
    assert "not in its folder" in said["pictures/out.png"]
    with pytest.raises(LessonError, match="pictures/"):
        library.load_pack(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pack_is_read_from_regular_files_inside_it_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.yaml").write_text("problems: []\n")
    (folder / "cards.yaml").symlink_to("/dev/zero")
    (folder / "tasks.yaml").symlink_to(tmp_path / "outside.yaml")
    os.mkfifo(folder / "project.yaml")
    found = {finding.file: finding.message for finding in library.check_pack(folder)}
    assert "not in its folder" in found["cards.yaml"] and "not in its folder" in found["tasks.yaml"]
    assert found["project.yaml"] == "not a regular file"


def test_a_folder_of_very_many_files_is_no_pack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (folder / f"{number}.txt").touch()
    monkeypatch.setattr(sources, "MOST_FILES", 20)
    with pytest.raises(LessonError, match="over 20 files"):
        library.check_pack(folder)


def test_numbers_that_have_no_end_are_refused(folder: Path) -> None:
    (folder / "tasks.yaml").write_text(
        "tasks:\n- {slug: a, title: t, text: t, experiment: pretrained-vs-scratch, tries: 1, hints: [h],\n"
        "  controls: [{name: c, label: l, start: 1, minimum: 0, maximum: .inf, step: .nan}],\n"
        "  goals: [{field: ratio, relation: above, value: 1}]}\n"
    )
    assert [finding.key.rpartition(".")[2] for finding in library.check_pack(folder)] == ["maximum", "step"]


def test_an_object_in_yaml_is_not_made(folder: Path) -> None:
    edit(folder, "pack.yaml", "track: ML", "track: !!python/object/apply:os.getcwd []")
    assert "not valid YAML" in str(library.check_pack(folder)[0])


def test_experiments_and_fields_that_there_are_none_of_are_told(folder: Path) -> None:
    edit(folder, "pack.yaml", "      ratio: what", "      ratoi: a slip\n      ratio: what")
    (said,) = map(str, library.check_pack(folder))
    assert "warning: the result has no field 'ratoi'" in said and said.startswith("pack.yaml:13")
    for name in ("pack.yaml", ASKED, PAGE):
        edit(folder, name, "pretrained-vs-scratch", "pretrained-vs-scrap")
    assert any("no experiment of this name" in str(one) for one in library.check_pack(folder))
    assert library.load_pack(folder).experiments, "a warning keeps no pack from opening"


def test_placeholders_show_what_was_measured_and_nothing_else() -> None:
    text = "Took {{ experiment:one-pass.ratio }} times less. {{ claim:one-pass }} See\n{{ plot:one-pass }}"
    assert placeholders.fill(text, {}) == "Took not measured yet times less. See\n"
    assert placeholders.fill(text, {"one-pass": {"ratio": 3.14159}}) == "Took 3.14 times less. See\n"


def test_fenced_code_keeps_the_line_numbers() -> None:
    assert prose_lines("a\n```\nb\n```\nc") == ["a", "", "", "", "c"]


def test_a_goal_compares_with_a_number_or_another_field() -> None:
    assert Goal("ratio", "at_least", value=3).met({"ratio": 3.0})
    assert not Goal("seconds", "at_most", of="slow", times=0.5).met({"seconds": 6.0, "slow": 10.0})
    with pytest.raises(LessonError, match="'slow'"):
        Goal("seconds", "at_most", of="slow").met({"seconds": 6.0})
