"""The command line: what it prints, where, and how it fails."""

import csv
import io
import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headstart import cli
from headstart.cli.terminal import ProgressBar

HEADSTART = Path(sys.executable).with_name("headstart")
SMALL = ("--backbone", "builtin", "--size", 64)


def headstart(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEADSTART, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def run(photos: Path, tmp_path: Path) -> Path:
    done = headstart("fit", photos, *SMALL, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_fit_prints_one_object_with_everything_a_machine_needs(photos: Path, tmp_path: Path) -> None:
    done = headstart("fit", photos, *SMALL, "--out", tmp_path / "run", "--json")
    found = json.loads(done.stdout)
    assert {"run", "path", "backbone", "depth", "head", "classes", "images", "accuracy", "macro_f1"} <= set(
        found
    )
    assert set(found["images"]) == {"train", "validation", "test", "skipped"}
    assert set(found["accuracy"]) == {"validation", "test"}
    assert {"total", "check", "features", "train", "evaluate"} <= set(found["seconds"])
    assert set(found["cache"]) == {"hits", "misses", "bytes"}


def test_fit_ends_with_accuracy_interval_and_time(photos: Path, tmp_path: Path) -> None:
    done = headstart("fit", photos, *SMALL, "--out", tmp_path / "run")
    accuracy, seconds = done.stdout.strip().splitlines()[-2:]
    assert "accuracy" in accuracy and " to " in accuracy and "%" in accuracy
    assert " s (" in seconds and str(tmp_path / "run") in seconds
    assert done.stdout.isascii() and "\r" not in done.stdout + done.stderr
    below = headstart("fit", photos, *SMALL, "--out", Path("runs", "first"))
    assert below.stdout.endswith("saved in runs/first\n"), "as one would type it"


def test_predict_lists_labels_with_probabilities(small_run: Path, photos: Path) -> None:
    images = (photos / "bars" / "000.jpg", photos / "discs")
    done = headstart("predict", small_run, *images, "--json", "--top", 2)
    found = json.loads(done.stdout)
    assert len(found) == 17
    assert set(found[0]) == {"path", "label", "probability", "top", "familiarity"}
    assert len(found[0]["top"]) == 2 and found[0]["top"][0] == [found[0]["label"], found[0]["probability"]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("headstart pre", ["plain,predict"]),
        ("headstart fit photos --head s", ["plain,softmax"]),
        ("headstart compare photos --backbones a,builtin-", ["plain,a,builtin-large"]),
        ("headstart export run --to open", ["plain,openvino"]),
        ("headstart fit pho", ["file,pho"]),
        ("headstart predict no-such-run", ["file,no-such-run"]),
    ],
)
def test_a_shell_is_offered_words_of_options_and_files(words: str, expected: list[str]) -> None:
    count = str(len(words.split()) - 1)
    asked = {"COMP_WORDS": words, "COMP_CWORD": count, "_HEADSTART_COMPLETE": "bash_complete"}
    done = CliRunner(env=asked).invoke(cli.cli, prog_name="headstart")
    assert done.stdout.splitlines() == expected


def test_predict_writes_a_table_for_spreadsheets(small_run: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "bars/broken.jpg").write_bytes(b"no image")
    images = [photos / "bars" / name for name in ("000.jpg", "broken.jpg")]
    done = headstart("predict", small_run, *images, "--csv", tmp_path / "labels.csv", "--reject", 0.05)
    assert done.stdout == f"2 images, 1 of them unreadable; saved in {tmp_path / 'labels.csv'}\n"
    text = (tmp_path / "labels.csv").read_bytes()
    assert text.startswith("\ufeffpath,".encode())
    first, broken = csv.DictReader(io.StringIO(text.decode("utf-8-sig")))
    assert first["label"] == "bars" and 0 < float(first["probability"]) <= 1
    assert first["known"] in ("true", "false") and first["note"] == ""
    assert broken["label"] == "" and "not an image" in broken["note"]
    for place in (tmp_path, tmp_path / "none" / "labels.csv"):
        refused = headstart("predict", small_run, *images, "--csv", place)
        assert refused.returncode == 2 and refused.stderr.endswith(
            "expected a file in a folder that exists\n"
        )
    shutil.copy(photos / "bars/000.jpg", "=1+1.jpg")
    headstart("predict", small_run, "=1+1.jpg", "--csv", "here.csv")
    assert "\n'=1+1.jpg,bars," in Path("here.csv").read_text(encoding="utf-8-sig")


def test_predict_names_what_it_cannot_read_and_goes_on(small_run: Path, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 truncated")
    done = headstart("predict", small_run, bad, photos / "bars" / "000.jpg")
    assert done.returncode == 0 and "bad.jpg" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_a_run_whose_folder_is_no_utf8_is_printed_and_parsed(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"r\xff")
    done = headstart("fit", photos, *SMALL, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(folder)
    assert "Traceback" not in headstart("runs", folder).stderr


def test_evaluate_measures_on_other_images(small_run: Path, make_photos, tmp_path: Path) -> None:
    done = headstart("evaluate", small_run, make_photos(tmp_path / "others", per_class=4, seed=9), "--json")
    found = json.loads(done.stdout)
    assert found["images"] == 12 and 0 <= found["accuracy"] <= 1


def test_evaluate_says_how_many_images_it_was_trained_on(
    own_run: Path, photos: Path, make_photos, tmp_path
) -> None:
    flattered = headstart("evaluate", own_run, photos)
    trained = json.loads((own_run / "run.json").read_text())["images"]["train"]
    assert f"it was trained on {trained} of these 48 images" in flattered.stderr
    others = headstart("evaluate", own_run, make_photos(tmp_path / "others", per_class=4, seed=9))
    assert "trained on" not in others.stderr
    (own_run / "images.json").unlink()
    assert json.loads(headstart("evaluate", own_run, photos, "--json").stdout)["trained_on"] is None


def test_evaluate_records_a_run_that_report_and_runs_know(
    small_run: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for name in ("model.onnx", "classifier.json"):
        shutil.copy(small_run / name, folder)
    refused = headstart("report", folder)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert f"headstart evaluate {folder} DATA --record" in refused.stderr
    done = headstart("evaluate", folder, photos, "--record")
    assert done.returncode == 0 and f"headstart report {folder}" in done.stdout
    assert headstart("report", folder, "--out", tmp_path / "report.md").returncode == 0
    assert json.loads(headstart("evaluate", folder, photos, "--json").stdout)["trained_on"] is None
    listed = json.loads(headstart("runs", "--json").stdout)
    assert [(each["path"], each["depth"]) for each in listed if not each["trained"]] == [(str(folder), "all")]
    assert "trained elsewhere" in headstart("runs", folder).stdout
    again = headstart("evaluate", small_run, photos, "--record")
    assert again.returncode == 2 and "record of this classifier's training" in again.stderr


def test_evaluate_refuses_classes_it_does_not_know(small_run: Path, photos: Path) -> None:
    (photos / "discs").rename(photos / "triangles")
    done = headstart("evaluate", small_run, photos)
    assert done.returncode == 2 and "triangles" in done.stderr


def test_check_reports_what_is_wrong(photos: Path) -> None:
    (photos / "bars" / "000.jpg").write_bytes((photos / "discs" / "000.jpg").read_bytes())
    (photos / "bars" / "001.jpg").write_bytes(b"nothing")
    done = headstart("check", photos)
    assert done.returncode == 0
    assert "001.jpg" in done.stdout and "000.jpg" in done.stdout
    assert json.loads(headstart("check", photos, "--json").stdout)


def test_backbones_lists_and_shows_stages() -> None:
    listed = headstart("backbones").stdout
    assert "builtin" in listed and "\ndefault: efficientnet_lite0\n" in listed
    assert any(info["name"] == "builtin" for info in json.loads(headstart("backbones", "--json").stdout))
    shown = json.loads(headstart("backbones", "builtin", "--size", 64, "--json").stdout)
    assert [stage["depth"] for stage in shown["stages"]] == list(range(1, len(shown["stages"]) + 1))
    assert all(stage["multiply_adds"] > 0 for stage in shown["stages"])
    assert "depth" in headstart("backbones", "builtin").stdout


def test_runs_lists_sorts_filters_and_shows(run: Path) -> None:
    listed = json.loads(headstart("runs", "--json").stdout)
    assert [Path(entry["path"]) for entry in listed] == [run]
    assert listed[0]["run"] in headstart("runs", "--sort", "accuracy").stdout
    assert json.loads(headstart("runs", "--filter", "no such thing", "--json").stdout) == []
    assert headstart("runs", "--filter", "no such thing").stdout.startswith("no run has 'no such thing'")
    assert "seconds" in headstart("runs", listed[0]["run"]).stdout
    assert json.loads(headstart("runs", run, "--json").stdout)["run"] == listed[0]["run"]
    words = {"COMP_WORDS": f"headstart runs {listed[0]['run'][:-2]}", "COMP_CWORD": "2"}
    asked = words | {"_HEADSTART_COMPLETE": "bash_complete"}
    offered = CliRunner(env=asked).invoke(cli.cli, prog_name="headstart").stdout
    assert offered == f"plain,{listed[0]['run']}\n"


def test_the_cache_is_shown_and_pruned(run: Path) -> None:
    shown = json.loads(headstart("cache", "--json").stdout)
    assert shown["bytes"] > 0 and any(
        partition.get("backbone") == "builtin" for partition in shown["partitions"]
    )
    assert "builtin" in headstart("cache").stdout
    assert json.loads(headstart("cache", "prune", "--json").stdout)["bytes"] > 0
    assert json.loads(headstart("cache", "--json").stdout)["partitions"] == []
    assert run.exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fit", "no/such/folder"], "no/such/folder"),
        (["fit", ".", "--head", "forest"], "forest"),
        (["predict", "no-such-run", "image.jpg"], "no-such-run"),
        (["backbones", "bultin"], "builtin"),
        (["runs", "--sort", "beauty"], "beauty"),
        (["runs", "--limit", "0"], "--limit"),
        (["cache", "prune", "--keep", "much"], "much"),
        (["fit"], "Missing argument"),
        (["fly"], "fly"),
        (["fitt"], "did you mean fit?"),
        (["backbones", "builtin@96", "--size", "64"], "give one size"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(arguments: list[str], word: str) -> None:
    done = headstart(*arguments)
    assert done.returncode == 2
    assert word in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("verb", list(cli._VERBS))
def test_every_verb_has_help_with_an_example_and_a_page(verb: str) -> None:
    shown = CliRunner().invoke(cli.cli, [verb, "--help"], prog_name="headstart")
    assert shown.exit_code == 0
    assert f"headstart {verb}" in shown.stdout
    page = Path(__file__).parents[1] / "docs" / "cli.md"
    assert f"## headstart {verb}" in page.read_text()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['headstart', '--help']\n"
        "from headstart.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'torch', 'timm', 'openvino', 'PIL', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_predict_and_fit_by_default_never_load_pytorch(photos: Path) -> None:
    code = (
        "import sys, headstart\n"
        f"classifier, run = headstart.fit({str(photos)!r}, size=64)\n"
        f"classifier.predict({str(photos / 'bars' / '000.jpg')!r})\n"
        "print(sorted({'torch', 'timm', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------- in and out

STOPPED = "\nheadstart: stopped; every feature computed so far is kept: the same command goes on from here\n"


def in_python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A program that ends in the command's entry point, with Ctrl-C as in a terminal."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


CTRL_C_ON_IMPORT = """
import os, signal, sys
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.argv = ["headstart", *sys.argv[1:]]
module = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, CtrlC())
from headstart.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
@pytest.mark.parametrize(
    "module", ["headstart.cli", "click", "headstart.cli.fit", "numpy", "sqlite3", "openvino"]
)
def test_ctrl_c_while_it_starts_is_one_line(module: str, photos: Path, tmp_path: Path) -> None:
    done = in_python(CTRL_C_ON_IMPORT, module, "fit", photos, *SMALL, "--out", tmp_path / "run")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", STOPPED)
    assert list(tmp_path.glob("*run*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
@pytest.mark.parametrize(
    "swallowed",
    [
        "class Held:\n    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\nHeld()",
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        "except KeyboardInterrupt: raise ImportError('as extension modules do') from None",
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\nexcept BaseException: pass\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)",
    ],
    ids=["while an object is deleted", "turned into something else", "swallowed once"],
)
def test_ctrl_c_that_python_would_lose_still_stops(swallowed: str) -> None:
    program = (
        "import os, signal, time, headstart.cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"def work():\n    exec({swallowed!r})\n    print('went on')\n"
        "headstart.cli.main = work\n"
        "from headstart.__main__ import main\n"
        "main()"
    )
    done = in_python(program, "fit")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", STOPPED)
    done = in_python(program, "runs")  # stores no features, so it promises none
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nheadstart: stopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="closes file descriptors")
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&- <&-"])
def test_it_works_without_streams(closed: str, photos: Path, tmp_path: Path) -> None:
    small = " ".join(map(str, SMALL))
    command = f"{shlex.quote(str(HEADSTART))} fit {photos} {small} --out {tmp_path / 'run'} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "run" / "run.json").exists(), done.stderr
    wrong = subprocess.run(["sh", "-c", f"{HEADSTART} predict nothing {closed}"], check=False)
    assert wrong.returncode == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict", "utf-16", "utf-8"])
def test_json_is_utf8_on_every_pipe_and_text_is_never_refused(
    encoding: str, make_photos: Any, tmp_path: Path
) -> None:
    folder = make_photos(tmp_path / "photos", per_class=2)
    (folder / "bars").rename(folder / "Käfer-日")
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for options in (["--json"], []):
        done = subprocess.run(
            [HEADSTART, "check", folder, *options], capture_output=True, check=False, env=environment
        )
        assert b"Traceback" not in done.stderr
        if options:
            assert "Käfer-日" in json.loads(done.stdout.decode("utf-8"))["classes"]


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
@pytest.mark.parametrize(
    ("terminal", "columns", "shown"), [("xterm", 0, 79), ("xterm", 40, 39), ("dumb", 80, 0)]
)
def test_the_bar_fits_the_terminal(
    terminal: str, columns: int, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    monkeypatch.setenv("TERM", terminal)
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb") as screen:
        monkeypatch.setattr(sys, "stderr", stream)
        bar = ProgressBar()
        bar.on_progress("features", 3, 10)
        stream.write("\n")
        stream.flush()
        line = screen.readline().decode()
    assert len(line.strip("\r\n")) == shown


def test_the_end_waits_for_others_and_flushes_but_takes_nothing_down() -> None:
    program = (
        "import atexit, sys, threading, time\n"
        "class Heavy:\n"
        "    def __del__(self): sys.__stderr__.write('taken down')\n"
        "heavy = Heavy()\n"
        "def late(): time.sleep(0.2); sys.stdout.write(' a thread,')\n"
        "def work():\n"
        "    atexit.register(lambda: sys.stdout.write(' a handler'))\n"
        "    threading.Thread(target=late).start()\n"
        "    sys.stdout.write('the result,')\n"
        "    {end}\n"
        "import headstart.cli; headstart.cli.main = work\n"
        "from headstart.__main__ import main\n"
        "main()"
    )
    for end, code in (("return", 0), ("sys.exit(2)", 2)):
        done = in_python(program.format(end=end))
        assert (done.returncode, done.stdout) == (code, "the result, a thread, a handler")
        assert done.stderr == ""
    defect = in_python(program.format(end="1 / 0"))
    assert defect.returncode == 1 and "ZeroDivisionError" in defect.stderr


@pytest.mark.parametrize("command", [["--help"], ["fit", "--help"], ["runs", "--json"]])
def test_a_reader_that_has_had_enough_ends_it_quietly(command: list[str]) -> None:
    for unbuffered in ("", "1"):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [HEADSTART, *command],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "headstart", "--version"], capture_output=True, text=True)
    assert done.stdout == headstart("--version").stdout and done.returncode == 0


@pytest.mark.parametrize(
    ("load", "given", "expected"),
    [
        (0.5, {}, {}),
        (99999.0, {}, {"GOMP_SPINCOUNT": "1000"}),
        (99999.0, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_asleep_where_others_keep_the_cores_busy(
    load: float, given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.__main__ import wait_asleep_where_busy

    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    environment = dict(given)
    wait_asleep_where_busy(environment)
    assert environment == expected


def test_no_error_of_ours_breaks_its_line_or_writes_to_the_terminal() -> None:
    done = headstart("check", "no\x1b[31m\nsuch")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr and "no\\x1b[31m\\nsuch" in done.stderr


def test_the_option_that_was_called_taps_still_works_and_says_its_name(photos: Path, tmp_path: Path) -> None:
    arguments = ["fit", str(photos), "--size", "64", "--taps", "all", "--json"]
    done = CliRunner().invoke(cli.cli, [*arguments, "--out", str(tmp_path / "run")])
    assert done.stderr == "headstart: --taps is called --layers now\n"
    config = json.loads(done.stdout)["config"]
    assert config["taps"] == config["layers"] and len(config["layers"]) > 1
    again = CliRunner().invoke(cli.cli, [*arguments, "--layers", "last", "--out", str(tmp_path / "last")])
    assert not json.loads(again.stdout)["config"]["layers"]
    assert "--taps" not in CliRunner().invoke(cli.cli, ["fit", "--help"]).output
