"""Experiments: predicted, bounded, stored, on images of one's own or of ours. Claims: test_lesson_claims."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.cli.experiment import command
from headstart.costs import Timings
from headstart.costs.timings import remember
from headstart.data.dataset import read_dataset
from headstart.errors import MissingExtra, OptionError, RunError, UserError
from headstart.lesson import experiments
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine import placeholders
from headstart.lesson.engine.results import ExperimentResult
from headstart.lesson.experiments import data, declarations
from headstart.runs.store import Timing
from headstart.web.plots import Plot, Series, Table

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = "five-images-one-epoch"


def a_result(name: str = QUICK, **changes: Any) -> ExperimentResult:
    plot = Plot("line", "t", "x", "y", (Series("a", ((1.0, 2.0), ("b", 3.0))),))
    result = ExperimentResult(
        id="one",
        name=name,
        size="small",
        parameters={"runs": 60},
        varied=(),
        fields={"runs": 60, "missing": None},
        plots=(plot,),
        table=Table(("a", "b"), (("x", 1),)),
        notes=("note",),
        data="digits",
        own_data=False,
        machine={"cores": 2},
        versions={"headstart": "0"},
        seed=0,
        seconds=1.5,
        predicted_seconds=2.0,
        created="now",
        processor_seconds=1.2,
    )
    return replace(result, **changes)


def small(name: str, **parameters: Any) -> ExperimentResult:
    """Runs an experiment at its smallest size with these parameters, on drawings where it uses images."""
    source = "drawings" if declarations.declaration(name).images else None
    return experiments.run(name, size="small", source=source, parameters=parameters)


def test_the_packs_and_the_registry_name_the_same_experiments() -> None:
    packs = [library.load_pack(name) for name in library.available()]
    assert {name for pack in packs for name in pack.experiments} == set(experiments.registry())


@pytest.mark.parametrize("slug", library.available())
def test_every_control_of_the_tasks_is_a_parameter_of_its_experiment(slug: str) -> None:
    pack = library.load_pack(slug)
    for task in (*pack.tasks, pack.project):
        assert task is not None
        declared = declarations.declaration(task.experiment)
        for control in task.controls:
            values = control.choices or (control.minimum, control.maximum)
            for value in values:
                assert control.name in declared.read({control.name: value}, size="normal")


# --------------------------------------------------------------------------------- before anything has run


def test_until_one_has_run_there_is_nothing_to_show(private_folders: Path) -> None:
    assert experiments.results() == {}
    assert all(experiments.latest(name) is None for name in experiments.registry())
    text = "It took {{ experiment:one-pass.seconds_once }} seconds."
    assert placeholders.fill(text, experiments.results()) == "It took not measured yet seconds."
    assert not (private_folders / "home").exists(), "reading makes no file"


def test_listing_and_describing_load_neither_pytorch_nor_openvino() -> None:
    code = (
        "import sys; from headstart.lesson import experiments as e; "
        "[e.describe(n) for n in e.registry()]; e.results(); "
        "print([m for m in ('torch', 'timm', 'openvino', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_prediction_is_planned_until_it_has_run_here_and_remembered_afterwards() -> None:
    before = experiments.describe(QUICK, size="small")
    low, high = before.predicted_range
    assert before.predicted_from == "planned" and before.bound == 180
    assert 0 < low < before.predicted_seconds < high
    for _ in range(3):
        result = experiments.run(QUICK, size="small")
    assert result.predicted["source"] == "remembered from runs here"
    after = experiments.describe(QUICK, size="small")
    assert after.predicted_from == "remembered from runs here"
    lower, higher = after.predicted_range
    assert higher / lower <= high / low, "what was seen is known better"
    assert experiments.describe(QUICK).predicted_from == "planned", "the other size has not run"


def test_a_prediction_follows_the_parameters_and_the_machine() -> None:
    few, many = (
        experiments.describe("one-pass", parameters={"epochs": epochs}).predicted_seconds
        for epochs in (2, 50)
    )
    assert many > 4 * few
    plain = {name: experiments.describe(name).predicted_seconds for name in experiments.registry()}
    for name in plain:
        declared = declarations.declaration(name)
        assert plain[name] == pytest.approx(declared.normal_seconds, rel=0.01), "as measured, nothing known"
    slow = [Timing(kind, "", 2.0) for kind in ("decode", "prefix", "epoch") for _ in range(12)]
    remember(slow)
    for name in plain:
        if plain[name] < 40:
            assert experiments.describe(name).predicted_seconds > 1.4 * plain[name], name
        assert experiments.describe(name).predicted_range[1] <= declarations.BOUND


def test_what_is_remembered_of_this_machine_is_read_only_when_it_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[int] = []
    load = Timings.load
    monkeypatch.setattr(Timings, "load", lambda: loads.append(1) or load())
    remember([Timing("epoch", "", 1.0)])
    for name in experiments.registry():
        experiments.describe(name)
    assert len(loads) == 1
    before = experiments.describe("freeze-depth").predicted_seconds
    remember([Timing("epoch", "", 3.0)] * 12)
    assert experiments.describe("freeze-depth").predicted_seconds > before
    assert len(loads) == 2


@pytest.mark.parametrize(
    ("name", "networks"),
    [
        ("model-choice", ("builtin@32", "builtin@64", "builtin@96", "builtin@224")),
        ("accuracy-against-time", ("builtin@48", "builtin", "builtin@160", "builtin-large@160")),
    ],
)
def test_a_prediction_follows_the_network_and_its_pixels(name: str, networks: tuple[str, ...]) -> None:
    seconds = [
        experiments.describe(name, parameters={"backbone": network}).predicted_seconds for network in networks
    ]
    assert seconds == sorted(set(seconds)), "each takes longer than the one before"
    with pytest.raises(OptionError, match="pixels a side after the @"):
        experiments.describe(name, parameters={"backbone": "builtin@many"})


def test_a_run_on_own_images_teaches_no_prediction(photos: Path) -> None:
    experiments.run("taps", source=str(photos), size="small")
    assert experiments.describe("taps", size="small").predicted_from == "planned"


def test_without_pytorch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.backbones.building.find_spec", lambda name: None)
    assert experiments.describe("one-pass").missing == "torch"
    with pytest.raises(MissingExtra, match=r"one-pass.*headstart\[torch\]"):
        experiments.run("one-pass", size="small")
    assert experiments.run(QUICK, size="small").fields["runs"] == 60, "this one needs no PyTorch"


# -------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("no-such", {}, "no experiment 'no-such'"),
        (QUICK, {"size": "huge"}, "expected one of small, normal"),
        (QUICK, {"parameters": {"depth": 3}}, "has no parameter 'depth'"),
        (QUICK, {"parameters": {"runs": 0}}, "whole number from 1 to 1000"),
        (QUICK, {"parameters": {"runs": "1.5"}}, "whole number"),
        (QUICK, {"parameters": {"runs": float("inf")}}, "whole number"),
        (QUICK, {"source": "photos"}, "leave the folder out"),
        ("images-needed", {"parameters": {"images_per_class": 50}}, "at most most_images_per_class"),
        ("one-pass", {"parameters": {"keep": "maybe"}}, "expected one of no, yes"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(name: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        experiments.run(name, **{"size": "small", **changes})
    assert experiments.results() == {}


@settings(deadline=None)
@given(st.integers(-1000, 1000))
def test_a_number_is_taken_within_its_limits_and_refused_outside(value: int) -> None:
    parameter = declarations.Parameter("epochs", "…", 1, 1, minimum=1, maximum=50)
    for given_as in (value, str(value), float(value)):
        if 1 <= value <= 50:
            assert parameter.read(given_as) == value
        else:
            with pytest.raises(OptionError, match="1 to 50"):
                parameter.read(given_as)


def test_a_random_start_has_no_head_start() -> None:
    values = {"start": "random weights", "epochs": 1, "images_per_class": 4}
    result = small("pretrained-vs-scratch", **values)
    assert result.varied == ("start", "epochs", "images_per_class")
    assert "every layer trained, from other random weights" in [row[0] for row in result.table.rows]
    first, second = (float(result.fields[f"accuracy_{run}"] or 0) for run in ("pretrained", "scratch"))
    assert abs(first - second) < 30


@pytest.mark.parametrize(("depth", "trained", "unused"), [("half", [2, 2, 3], False), ("all", [2, 2], True)])
def test_the_learners_epochs_do_not_move_the_models_to_compare_with(
    depth: str, trained: list[int], unused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.lesson.experiments import models, training
    from headstart.lesson.experiments.context import Seconds

    seen: list[int] = []

    def fit(*_: Any, config: Any, **__: Any) -> Any:
        """What a training that went well would say: that it would is not the question here."""
        seen.append(config.epochs)
        return training.Finished(50.0, 60.0, Seconds(1.0, 1.0), ((1.0, 60.0),), 9)

    monkeypatch.setattr(models, "fit_stages", fit)
    values = {"epochs": 3, "reference_epochs": 2, "images_per_class": 4, "size": 64, "backbone": "builtin@32"}
    result = small("accuracy-against-time", depth=depth, **values)
    assert seen == trained
    assert any("epochs of your choice were not used" in note for note in result.notes) == unused
    own = result.table.rows[-1]
    assert str(own[0]).startswith("your choice") and own[4] == result.fields["validation_accuracy"]


def test_the_best_depth_is_chosen_by_the_validation_images() -> None:
    result = small("freeze-depth", depths=3, epochs=1, images_per_class=6, size=32)
    best = max(result.table.rows, key=lambda row: (row[3], row[0]))
    assert result.table.columns[3].startswith("validation") and result.fields["best_depth"] == best[0]


def test_fewer_images_from_scratch_do_not_mean_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.lesson.experiments import initial_weights

    made: list[int] = []
    fit = initial_weights.fit_stages

    def watched(*given: Any, **options: Any) -> Any:
        run = fit(*given, **options)
        made.append(run.steps)
        return run

    monkeypatch.setattr(initial_weights, "fit_stages", watched)
    result = small("images-needed", images_per_class=2, most_images_per_class=8, steps=13)
    assert made == [13, 13, 13], "of whole epochs it would be others for every number of images"
    assert [row[0] for row in result.table.rows] == [2, 4, 8]
    assert any("little more than guessing" in note for note in result.notes), "in thirteen steps"


def test_so_many_steps_are_made_whatever_the_epochs() -> None:
    from headstart.lesson.experiments.context import Seconds
    from headstart.lesson.experiments.training import Finished

    run = Finished(50.0, 60.0, Seconds(9.0, 20.0), ((1.0, 10.0), (3.0, 40.0), (9.0, 60.0)), 24)
    assert run.per_epoch == 2.0, "a median: an epoch that was disturbed does not count"
    assert run.seconds_to(40.0) == 3.0 and run.seconds_to(61.0) is None


def test_what_takes_an_absent_networks_part_is_named_with_its_pixels() -> None:
    from headstart.lesson.experiments import networks

    chosen = networks.load("no-such-network", size=32)
    assert chosen.label == f"{chosen.network.name} at {chosen.network.preprocess.size} px"
    assert chosen.network.name != "builtin" and chosen.label in chosen.note
    plain = networks.load("builtin-large@48", size=32)
    assert plain.label == "builtin-large at 48 px" and not plain.note


def test_an_absent_network_is_timed_as_it_would_run_on_the_images_of_the_others() -> None:
    pytest.importorskip("timm")
    values = {"large": "mobilenetv2_100", "itself": "yes", "images_per_class": 3, "epochs": 1, "size": 32}
    result = small("model-choice", **values)
    label, accuracy, *_, seconds, _, _ = result.table.rows[-1]
    assert "mobilenetv2_100 itself at 64 px" in str(label) and accuracy is None and float(seconds or 0) > 0
    assert f"all {len(data.SHAPES) * 6} images" in str(label), "a half of them is held out"


def test_what_takes_too_long_ends_without_a_result_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(experiments, "BOUND", 0.05)
    with pytest.raises(UserError, match=r"limit of 0 s; (run it with smaller values|other work kept)"):
        small("images-needed", images_per_class=2, most_images_per_class=4)
    assert experiments.latest("images-needed") is None, "what was cut is neither quoted nor graded"


@pytest.mark.parametrize(
    ("computed", "passed", "busy"),
    [(10.0, 10.5, False), (10.0, 16.0, True), (0.2, 1.0, False), (0.2, 1.5, True)],
)
def test_a_busy_machine_is_told_by_its_clocks(computed: float, passed: float, busy: bool) -> None:
    from headstart.lesson.experiments.context import Seconds, is_busy

    assert is_busy(Seconds(computed, passed)) == busy


def test_a_process_that_is_waited_for_counts_and_waiting_itself_does_not() -> None:
    from headstart.lesson.experiments.context import Stopwatch

    watch = Stopwatch()
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.3: pass"], check=True)
    threading.Event().wait(0.3)
    seconds = watch.seconds()
    assert seconds.processor > 0.25 and seconds.clock > seconds.processor + 0.2


def test_a_model_is_better_only_where_every_draw_says_so() -> None:
    from headstart.lesson.experiments import models
    from headstart.lesson.experiments.context import Seconds

    def model(name: str, *draws: tuple[float, float]) -> models.Model:
        made = (models.Trained(accuracy, accuracy, Seconds(took, took), 1, 1) for accuracy, took in draws)
        return models.Model(name, tuple(made))

    quick = model("quick", (80.0, 1.0), (82.0, 1.2), (81.0, 9.0))
    good = model("good", (90.0, 2.0), (91.0, 2.5), (92.0, 2.1))
    lucky = model("lucky", (79.0, 3.0), (95.0, 3.0), (96.0, 3.0))
    bad = model("bad", (70.0, 4.0), (71.0, 4.0), (72.0, 4.0))
    assert quick.seconds.processor == 1.2, "a median"
    assert models._front([bad, lucky, good, quick]) == [quick, good], "lucky is not ahead in every draw"
    assert models._beaten([bad, lucky, good, quick]) == (bad, good)
    assert models._beaten([lucky, good]) == (None, None)
    said = models._conclusion_of_front([good], None, None)
    assert said.startswith("there was no trade-off") and "none was beaten" in said


def test_both_faces_of_the_program_run_and_print_multiples_of_a_fifth() -> None:
    if find_spec("keras") is None or find_spec("tensorflow") is None:
        pytest.skip("needs headstart[keras]")
    result = small(QUICK, face="Keras", runs=12)
    printed = {row[0]: row[1] for row in result.table.rows}
    assert sum(map(int, printed.values())) == result.fields["runs"] == 12
    assert int(printed["0.00"] or 0) + int(printed["0.20"] or 0) >= 8, "91 % of runs, pure guessing"
    assert any("MobileNetV2 in Keras" in note for note in result.notes)


def test_a_face_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.lesson.experiments import programs

    monkeypatch.setenv("KERAS_BACKEND", "no-such-backend")
    with pytest.raises(UserError, match=r"Keras face of the program failed: .*no-such-backend"):
        small(QUICK, face="Keras")
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"headstart\[keras\]"):
        small(QUICK, face="Keras")


def test_without_its_weights_the_challenges_network_has_random_ones() -> None:
    pytest.importorskip("timm")
    result = small(QUICK, backbone="mobilenetv2_100", runs=20)
    assert any("mobilenetv2_100 with random weights" in note for note in result.notes)


def test_features_that_are_not_kept_save_nothing() -> None:
    result = small("one-pass", keep="no", epochs=2, images_per_class=4)
    assert result.fields["ratio"] == 1 and result.fields["difference"] == 0


def test_a_varied_result_is_kept_and_never_quoted() -> None:
    small(QUICK, runs=5)
    assert experiments.results() == {}
    kept = experiments.latest(QUICK)
    assert kept is not None and kept.varied == ("runs",) and kept.fields["runs"] == 5
    assert experiments.latest(QUICK, as_declared=True) is None


# ------------------------------------------------------------------------------------------------- images


def test_an_experiment_runs_on_the_learners_own_folder(photos: Path) -> None:
    result = experiments.run("taps", size="small", source=str(photos))
    assert result.own_data and result.data == "photos"
    assert 0 <= float(result.fields["accuracy_last"] or 0) <= 100


def test_a_folder_without_test_images_has_its_sides_drawn_anew(make_photos: Any, tmp_path: Path) -> None:
    for side in ("train", "val"):
        make_photos(tmp_path / "own" / side, per_class=12, seed=len(side))
    given = data.images_of(tmp_path / "own", per_class=100, seed=0)
    assert {sample.split for sample in given.samples} == {None} and len(given) == 72
    make_photos(tmp_path / "own" / "test", per_class=3, seed=9)
    kept = data.images_of(tmp_path / "own", per_class=100, seed=0)
    assert {sample.split for sample in kept.samples} == {"train", "validation", "test"}
    result = experiments.run("taps", size="small", source=str(tmp_path / "own"))
    assert result.own_data and result.data == "own"


def test_too_few_images_of_ones_own_are_an_error_that_says_how_many(make_photos: Any, tmp_path: Path) -> None:
    from headstart.errors import DatasetError

    with pytest.raises(DatasetError, match="at least ten images of each class"):
        experiments.run("taps", size="small", source=str(make_photos(tmp_path / "few", per_class=2)))
    assert experiments.latest("taps") is None


@pytest.mark.parametrize(("source", "again"), [(data.DIGITS, 0.5), (data.DRAWINGS, 0.0)])
def test_another_seed_means_other_images(source: str, again: float) -> None:
    first, same, second = (
        {
            np.asarray(sample.source.read()).tobytes()
            for sample in data.images_of(source, per_class=25, seed=seed).samples
        }
        for seed in (1, 1, 2)
    )
    assert first == same and len(first & second) <= again * len(first), "digits come from one pool"


def test_fewer_drawings_are_among_more_and_all_differ() -> None:
    few, _ = data.drawings(per_class=2)
    more, names = data.drawings(per_class=5)
    kept = [shape * 5 + number for shape in range(len(data.SHAPES)) for number in range(2)]
    assert np.array_equal(few, more[kept])
    assert len({image.tobytes() for image in more}) == len(more)
    assert sorted(set(names)) == list(data.SHAPES)


def test_a_large_folder_is_cut_to_its_largest_classes() -> None:
    labels = np.repeat(np.arange(12), [*range(3, 15)])
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    whole = read_dataset((pixels, np.array([f"class{label:02}" for label in labels])))
    cut = data.limited(whole, per_class=6, seed=0)
    assert cut.classes == tuple(f"class{label:02}" for label in range(2, 12))
    assert np.bincount(cut.labels).tolist() == [5] + [6] * 9
    assert cut == data.limited(whole, per_class=6, seed=0)


# ---------------------------------------------------------------------------------------------- in the end


def test_a_stopped_experiment_stores_nothing() -> None:
    def stop(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiments.run(QUICK, size="small", progress=stop)
    assert experiments.latest(QUICK) is None


def test_the_same_seed_prints_the_same_and_another_one_does_not() -> None:
    first, again, other = (experiments.run(QUICK, size="small", seed=seed) for seed in (1, 1, 2))
    assert first.table == again.table != other.table


def test_results_of_before_are_kept_and_no_longer_quoted() -> None:
    store = experiments.ResultStore()
    store.add(a_result(id="old", processor_seconds=0.0))
    assert experiments.results() == {} and experiments.latest(QUICK) is not None
    store.add(a_result(id="new"))
    store.add(a_result(id="older", processor_seconds=0.0))
    quoted = experiments.latest(QUICK, as_declared=True)
    assert quoted is not None and quoted.id == "new"


def test_a_normal_result_is_quoted_before_a_newer_small_one() -> None:
    store = experiments.ResultStore()
    store.add(a_result(id="1", size="normal", fields={"runs": 200}))
    store.add(a_result(id="2", size="small", fields={"runs": 60}))
    assert experiments.results() == {QUICK: {"runs": 200}}
    quoted, newest = experiments.latest(QUICK, as_declared=True), experiments.latest(QUICK)
    assert quoted is not None and quoted.id == "1" and newest is not None and newest.id == "2"
    assert [found.id for found in store.history(QUICK)] == ["2", "1"]


def test_a_result_survives_json_and_a_damaged_one_is_refused() -> None:
    result = a_result()
    written = json.loads(json.dumps(result.to_dict()))
    assert ExperimentResult.from_dict(written) == result
    for added in ("predicted", "processor_seconds", "busy"):
        del written[added]
    assert ExperimentResult.from_dict(written).processor_seconds == 0, "as results of old were written"
    del written["table"]
    with pytest.raises(RunError, match="run it again"):
        ExperimentResult.from_dict(written)


def test_results_written_at_once_are_all_there(tmp_path: Path) -> None:
    store = experiments.ResultStore(tmp_path / "new")

    def add(number: int) -> None:
        store.add(a_result(id=str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert {found.id for found in store.history()} == {str(number) for number in range(40)}
    found = store.find("7")
    assert found is not None and found.id == "7" and store.find("nobody") is None


# ------------------------------------------------------------------------------------------- the command


def test_the_command_lists_runs_and_prints_json() -> None:
    listing = CliRunner().invoke(command, ["--size", "small"])
    assert listing.exit_code == 0 and all(name in listing.stdout for name in experiments.registry())
    run = CliRunner().invoke(command, [QUICK, "--size", "small", "--set", "runs=10", "--json"])
    assert run.exit_code == 0
    printed = json.loads(run.stdout)
    assert printed["fields"]["runs"] == 10 and printed["varied"] == ["runs"]
    text = CliRunner().invoke(command, [QUICK, "--size", "small"]).stdout
    assert "likeliest_share" in text and "printed" in text


def test_the_command_refuses_a_parameter_without_a_value() -> None:
    done = CliRunner().invoke(command, [QUICK, "--set", "runs"])
    assert isinstance(done.exception, OptionError) and "NAME=VALUE" in str(done.exception)
