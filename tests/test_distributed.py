"""Work on a Ray cluster: the same results as on this machine, whatever is lost or late meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pyarrow import parquet

import headstart
from conftest import shared_folders
from headstart.backbones import Backbone, load_backbone
from headstart.backbones.runtimes import select
from headstart.classifier import Classifier, Prediction, PredictOptions, load
from headstart.cli import cli
from headstart.comparisons.training import grid
from headstart.costs import CostEstimate
from headstart.data.dataset import Sample, list_unlabelled, read_dataset
from headstart.data.images import CENTRE, parse_views
from headstart.distributed import HERE, Place, place
from headstart.distributed import cluster as cluster_module
from headstart.distributed.carrying import Sent
from headstart.distributed.extraction import extract_shards
from headstart.distributed.prediction import Written, predict_table
from headstart.distributed.seconds import seconds_by_nodes
from headstart.errors import DatasetError, InternalError, MissingExtra, OptionError
from headstart.features import Extraction, FeatureCache, FeatureSpec, extract, shards
from headstart.features.shards import ShardedExtraction, cut_shards
from headstart.heads.threads import cores
from headstart.training import evaluation
from ray_clusters import die, die_once, refuse, rows_of, small_cluster, wait_for_company

SIZE = 64


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Any]:
    """The cluster that all tests here share; its workers have a cache of their own."""
    with shared_folders(tmp_path_factory.mktemp("workers"), compiled_models), small_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(two_nodes: Any) -> Iterator[Place]:
    with place("ray") as found:
        yield found


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FEW_IMAGES", 8)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("builtin", size=SIZE)


def run(
    where: Place, samples: Sequence[Sample], backbone: Backbone, cache: Path, **options: Any
) -> Extraction:
    spec = options.pop("spec", None) or FeatureSpec(len(backbone.stages), (CENTRE,), layers=True)
    runtime = select(precision="f32")
    return where.extract(samples, backbone, spec=spec, runtime=runtime, cache=FeatureCache(cache), **options)


# --- where


def test_nothing_of_ray_is_imported_where_nobody_asks_for_it() -> None:
    program = (
        "import sys, headstart.cli, headstart.training, headstart.comparisons, headstart.training.planning\n"
        "from headstart.distributed import HERE, place\n"
        "with place(None) as here: assert here is HERE\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'ray']"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MissingExtra, match=r"^--on ray needs an optional part: pip install 'headstart\[ray\]'$"
    ):
        headstart.fit(photos, on="ray")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "127.0.0.1:{closed}",
            "no cluster answers there (Connection refused); start one with ray start --head",
        ),
        ("ray://10.0.0.1:10001", "expected HOST:PORT of a cluster that this machine belongs to"),
        ("somewhere", "expected HOST:PORT, such as 10.0.0.1:6379, or auto"),
        ("here:port", "no cluster answers there"),
    ],
)
def test_an_address_where_no_cluster_is_gets_one_line_at_once(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", address.format(closed=free.getsockname()[1]))
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        with pytest.raises(OptionError) as error:
            headstart.fit(photos, on="ray")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_token_for_clusters_is_sent_where_there_is_one(tmp_path: Path) -> None:
    program = (
        "import os, sys; from headstart.distributed.cluster import _send_token; _send_token()\n"
        "print(os.environ.get('RAY_AUTH_MODE')); assert 'ray' not in sys.modules"
    )
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for mode in ("None", "token"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=others | {"HOME": str(tmp_path)},
            capture_output=True,
            check=True,
        )
        assert done.stdout.decode().strip() == mode
        (tmp_path / ".ray").mkdir(exist_ok=True)
        (tmp_path / ".ray" / "auth_token").write_text("for this test")


def test_what_ray_says_meanwhile_stays_off_stdout(
    two_nodes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    for name, answer in (("is_initialized", False), ("shutdown", None), ("init", None)):
        monkeypatch.setattr(f"ray.{name}", lambda answer=answer, **options: answer)
    with place("ray"):
        print("(raylet) a node has died")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "(raylet) a node has died\n")


def test_another_place_is_refused(photos: Path) -> None:
    with pytest.raises(OptionError, match=r"^on 'dask': expected ray, or nothing for this machine$"):
        headstart.fit(photos, on="dask")


# --- tasks


def test_work_that_dies_is_done_again_and_counts_once(cluster: Place, tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(7)]
    assert list(cluster.map(die_once, items)) == [number * number for number in range(7)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "3", "6"]


def test_work_that_ends_every_process_is_given_up(cluster: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_MOST_LOSSES", 2)
    with pytest.raises(InternalError, match="a task was lost 2 times with the process that did it"):
        list(cluster.each(die, [1]))


def test_errors_of_ours_keep_their_kind_and_their_sentence(cluster: Place) -> None:
    with pytest.raises(DatasetError, match=r"^3: no such thing$"):
        list(cluster.each(refuse, [3]))


def test_the_last_task_is_done_beside_itself_where_it_is_late(
    cluster: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_LEAST_LATE", 0.2)
    found = list(cluster.map(partial(wait_for_company, str(tmp_path)), range(4)))
    assert found == ["early", "early", "early", "second"]


def test_another_version_on_a_node_is_said(cluster: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "__version__", "9.9")
    with pytest.raises(OptionError, match=r"has headstart .*, the command 9\.9; install one"):
        list(cluster.each(abs, [1]))


# --- shards


def test_shards_are_all_of_the_samples_once_and_a_new_name_moves_few_of_them() -> None:
    names = [f"class{number % 7}/{number:05}.jpg" for number in range(3000)]
    before = cut_shards(names)
    assert [each.start for each in before[1:]] == [each.stop for each in before[:-1]]
    assert (before[0].start, before[-1].stop) == (0, len(names))
    assert all(32 <= each.stop - each.start < 96 for each in before[:-1])
    after = cut_shards([*names[:1500], "class3/new.jpg", *names[1500:]])
    common = {each.name for each in before} & {each.name for each in after}
    assert len(common) > 0.8 * len(before)


# --- extraction


def test_a_pass_on_the_cluster_gives_what_this_machine_computes(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    (photos / "discs" / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    samples = read_dataset(photos).samples
    spec = FeatureSpec(5, parse_views("flip"), layers=True)
    told: list[tuple[str, int, int]] = []
    far = run(
        cluster, samples, backbone, tmp_path / "far", spec=spec, progress=lambda *each: told.append(each)
    )
    near = run(HERE, samples, backbone, tmp_path / "near", spec=spec)
    assert isinstance(far, ShardedExtraction) and len(far.shards) > 3
    assert (far.hashes, far.facts, far.skipped) == (near.hashes, near.facts, near.skipped)
    assert far.use == near.use and far.use.hits == 0
    assert told[-1] == ("features", 49, 49) and len(told) == len(far.shards)
    images = [index for index, found in enumerate(far.hashes) if found is not None][::-1]
    layers = [layer.name for layer in backbone.feature_layers()]
    for view in spec.views:
        assert np.allclose(
            far.features(images, layers=layers, view=view),
            near.features(images, layers=layers, view=view),
            rtol=1e-5,
            atol=1e-5,
        )
        assert np.allclose(
            far.activations(images, view=view), near.activations(images, view=view), rtol=1e-5, atol=1e-5
        )


def test_what_was_computed_anywhere_is_not_computed_again(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    samples = read_dataset(photos).samples
    first = run(cluster, samples, backbone, tmp_path)
    again = run(cluster, samples, backbone, tmp_path)
    assert (first.use.misses, again.use.misses) == (48, 0)
    here = run(HERE, samples, backbone, tmp_path)  # takes the shards over
    assert here.use.misses == 0 and not list(tmp_path.rglob("*.shard"))
    far = run(cluster, samples, backbone, tmp_path)
    assert far.use.misses == 0
    assert np.array_equal(far.features(range(48), view=CENTRE), here.features(range(48), view=CENTRE))
    deeper = run(cluster, samples, backbone, tmp_path, spec=FeatureSpec(5, (CENTRE,), layers=True))
    assert deeper.use.misses == 48  # their maps
    assert np.array_equal(deeper.features(range(48), view=CENTRE), here.features(range(48), view=CENTRE))


def test_a_lost_node_costs_its_unfinished_shards_only(
    two_nodes: Any, cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    samples = read_dataset(photos).samples
    whole = run(HERE, samples, backbone, tmp_path / "near")
    node = two_nodes.add_node(num_cpus=1)
    killed: list[int] = []

    def kill(phase: str, done: int, total: int) -> None:
        if not killed:
            two_nodes.remove_node(node, allow_graceful=False)
            killed.append(done)

    found = run(cluster, samples, backbone, tmp_path / "far", progress=kill)
    assert killed and found.hashes == whole.hashes
    assert np.allclose(
        found.features(range(48), view=CENTRE), whole.features(range(48), view=CENTRE), rtol=1e-5, atol=1e-5
    )


def test_a_pass_that_is_ended_early_has_a_beginning_of_the_images(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    samples = read_dataset(photos).samples
    found = run(cluster, samples, backbone, tmp_path, progress=lambda phase, done, total: done > 10)
    assert len(found.hashes) < 48
    assert len(found.features(range(len(found.hashes)), view=CENTRE)) == len(found.hashes)


class _WithoutTheCache(Place):
    """Workers that do not see the cache's folder."""

    def each(self, work: Any, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        (about,) = work.args
        elsewhere = partial(work.func, replace(about, cache=about.cache / "elsewhere"))
        return super().each(elsewhere, items)


def test_workers_that_do_not_see_the_cache_send_their_features(
    photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    samples = read_dataset(photos).samples
    options: dict[str, Any] = {
        "spec": FeatureSpec(len(backbone.stages), (CENTRE,)),
        "runtime": select(precision="f32"),
        "cache": FeatureCache(tmp_path),
        "progress": None,
    }
    first = extract_shards(_WithoutTheCache(), samples, backbone, **options)
    again = extract_shards(_WithoutTheCache(), samples, backbone, **options)
    assert (first.use.misses, again.use.misses) == (48, 0)
    assert not (tmp_path / "elsewhere").exists()
    here = run(HERE, samples, backbone, tmp_path / "near")
    assert np.array_equal(again.features(range(48), view=CENTRE), here.features(range(48), view=CENTRE))


def test_images_in_archives_are_found_by_their_names(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    hashes = run(HERE, read_dataset(photos).samples, backbone, tmp_path / "near").hashes
    for kind in ("zip", "gztar"):
        archive = shutil.make_archive(str(tmp_path / "photos"), kind, photos)
        found = run(cluster, read_dataset(archive).samples, backbone, tmp_path / kind)
        assert found.hashes == hashes and not found.skipped


def test_a_folder_that_a_node_does_not_see_is_said(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path
) -> None:
    samples = read_dataset(photos).samples
    shutil.rmtree(photos)
    with pytest.raises(DatasetError, match=r"not there on .*; put images in a folder that all nodes see"):
        run(cluster, samples, backbone, tmp_path / "cache")


def test_features_that_vanish_meanwhile_are_computed_here(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    found = run(cluster, read_dataset(photos).samples, backbone, tmp_path)
    expected = found.features(range(48), view=CENTRE)
    files = sorted(found.partition.path.glob("*.shard"))
    files[0].unlink()
    files[1].write_bytes(b"no database" * 1000)
    assert np.allclose(found.features(range(48), view=CENTRE), expected, rtol=1e-5, atol=1e-5)


def test_a_fit_on_the_cluster_says_where_it_was_done(
    two_nodes: Any, photos: Path, small_shards: None
) -> None:
    _, near = headstart.fit(photos, backbone="builtin", size=SIZE, precision="f32", out="near")
    shutil.rmtree(Path(os.environ["HEADSTART_CACHE"]) / "features")
    _, far = headstart.fit(photos, backbone="builtin", size=SIZE, precision="f32", out="far", on="ray")
    assert any(note.startswith("ray: ") for note in far.notes) and far.cache["misses"] == 48
    assert (far.images, far.evaluation["test"]["accuracy"]) == (
        near.images,
        near.evaluation["test"]["accuracy"],
    )


# --- heads


@pytest.mark.parametrize("views", ["1", "40"], ids=["dual", "primal"])
def test_a_head_fitted_in_parts_is_the_one_of_this_machine(
    two_nodes: Any, photos: Path, small_shards: None, views: str
) -> None:
    options: dict[str, Any] = {"backbone": "builtin", "size": SIZE, "precision": "f32", "views": views}
    far, run_there = headstart.fit(photos, out="far", on="ray", **options)
    near, run_here = headstart.fit(photos, out="near", **options)  # on the features of the cluster
    assert run_here.cache["misses"] == 0
    assert run_there.head_fit["rows"] == run_here.head_fit["rows"] == 35 * int(views)
    for name in ("penalty", "layers"):
        assert run_there.head_fit[name] == run_here.head_fit[name]
    files = sorted(photos.rglob("*.jpg"))
    assert np.allclose(far.predict_proba(files), near.predict_proba(files), rtol=0, atol=1e-6)


def test_parts_of_a_pass_are_read_where_they_are_sent(
    cluster: Place, photos: Path, backbone: Backbone, tmp_path: Path, small_shards: None
) -> None:
    found = run(cluster, read_dataset(photos).samples, backbone, tmp_path)
    assert isinstance(found, ShardedExtraction) and found.seen_by_all
    parts = found.parts(3)
    rows = list(cluster.map(rows_of, [part for _, part in parts]))
    assert [first for first, _ in parts] == [0, *np.cumsum([len(each) for each in rows])[:-1]]
    assert np.array_equal(np.concatenate(rows), found.features(range(48), view=CENTRE))


# --- predictions


def test_a_worker_tells_classifiers_apart_that_differ_in_what_their_words_leave_out(small_run: Path) -> None:
    one = load(small_run)
    other = replace(one, costs=((0.0, 1.0, 9.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)))
    assert Sent.of(one, "model").here.costs is None
    assert Sent.of(other, "model").here.costs == other.costs


def test_features_that_another_pass_took_into_the_cache_are_read_there(
    photos: Path, small_shards: None, tmp_path: Path
) -> None:
    samples, backbone, runtime = (
        read_dataset(photos).samples,
        load_backbone("builtin", size=32),
        select("auto"),
    )
    spec, cache = FeatureSpec(len(backbone.stages), (CENTRE,)), FeatureCache(tmp_path / "cache")
    sharded = extract_shards(HERE, samples, backbone, spec=spec, runtime=runtime, cache=cache, progress=None)
    assert isinstance(sharded, ShardedExtraction)
    _, part = sharded.parts(2)[0]
    rows = np.arange(3)
    before = part.features(rows, view=CENTRE)
    extract(samples, backbone, spec=spec, runtime=runtime, cache=cache)
    np.testing.assert_array_equal(part.features(rows, view=CENTRE), before)


class _Stopping(Place):
    """Ends after so many shards, as a command that is interrupted."""

    def __init__(self, after: int) -> None:
        self.after, self.begun = after, 0

    def each(self, work: Any, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for position, result in super().each(work, items):
            self.begun += 1
            if self.begun > self.after:
                raise KeyboardInterrupt
            yield position, result


@pytest.fixture
def asked(small_run: Path, photos: Path, small_shards: None) -> tuple[Classifier, tuple[Sample, ...]]:
    (photos / "discs" / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    return load(small_run), list_unlabelled([photos]).samples


def test_predictions_are_one_row_for_each_image_in_their_order(
    asked: tuple[Classifier, tuple[Sample, ...]], cluster: Place, tmp_path: Path
) -> None:
    classifier, samples = asked
    options = PredictOptions(reject=0.05, coverage=0.5)
    near, far = (predict_table(classifier, samples, tmp_path / name, options, place=where, progress=None)
                 for name, where in (("near.parquet", HERE), ("far.parquet", cluster)))  # fmt: skip
    assert near == far == Written(49, 1, 0)
    rows = parquet.read_table(tmp_path / "near.parquet").to_pylist()
    assert [row["path"] for row in rows] == [sample.name for sample in samples]
    assert [row["path"] for row in rows if row["note"]] == [
        sample.name for sample in samples if "broken" in sample.name
    ]
    said = [each for each in classifier.predict_each(samples, options) if isinstance(each, Prediction)]
    answered = [row for row in rows if not row["note"]]
    assert [(row["label"], row["known"]) for row in answered] == [(each.label, each.known) for each in said]
    assert [row["labels"] for row in answered] == [list(each.labels or ()) for each in said]
    there = parquet.read_table(tmp_path / "far.parquet").to_pylist()
    for row, other in zip(rows, there, strict=True):
        assert (row["path"], row["label"], row["note"]) == (other["path"], other["label"], other["note"])
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-4)
    assert sorted(path.name for path in tmp_path.glob("*.parquet*")) == ["far.parquet", "near.parquet"]


def test_interrupted_predictions_are_gone_on_with(
    asked: tuple[Classifier, tuple[Sample, ...]], tmp_path: Path
) -> None:
    classifier, samples = asked
    out, options = tmp_path / "predictions.parquet", PredictOptions()
    with pytest.raises(KeyboardInterrupt):
        predict_table(classifier, samples, out, options, place=_Stopping(2))
    assert not out.exists()
    parts = sorted((tmp_path / "predictions.parquet.parts").glob("*.parquet"))
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:-9])  # what a power cut may leave
    counting = _Stopping(99)
    done = predict_table(classifier, samples, out, options, place=counting)
    assert done.images == 49 and 0 < done.found < 49
    assert counting.begun == len(cut_shards([sample.name for sample in samples])) - 1
    assert parquet.read_table(out)["path"].to_pylist() == [sample.name for sample in samples]


def test_rows_of_other_images_under_the_same_names_are_not_taken_up(
    asked: tuple[Classifier, tuple[Sample, ...]],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier, _ = asked
    out = tmp_path / "predictions.parquet"
    monkeypatch.chdir(photos.parent)
    with pytest.raises(KeyboardInterrupt):
        predict_table(
            classifier, list_unlabelled([photos.name]).samples, out, PredictOptions(), place=_Stopping(2)
        )
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(photos, tmp_path / "elsewhere" / photos.name)  # with the times of the files
    monkeypatch.chdir(tmp_path / "elsewhere")
    samples = list_unlabelled([photos.name]).samples
    assert predict_table(classifier, samples, out, PredictOptions()).found == 0
    with pytest.raises(KeyboardInterrupt):
        predict_table(classifier, samples, out, PredictOptions(), place=_Stopping(2))
    os.utime(samples[0].source.path, (1, 1))  # type: ignore[attr-defined]
    last = predict_table(classifier, samples, out, PredictOptions())
    assert 0 <= last.found < 49 and last.images == 49


def test_another_question_begins_anew_and_a_strange_folder_stays(
    asked: tuple[Classifier, tuple[Sample, ...]], tmp_path: Path
) -> None:
    classifier, samples = asked
    out = tmp_path / "predictions.parquet"
    with pytest.raises(KeyboardInterrupt):
        predict_table(classifier, samples, out, PredictOptions(), place=_Stopping(2))
    assert predict_table(classifier, samples, out, PredictOptions(coverage=0.5)).found == 0
    strange = tmp_path / "other.parquet.parts"
    strange.mkdir()
    (strange / "thesis.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"in the way, and no unfinished predictions; move it away"):
        predict_table(classifier, samples, tmp_path / "other.parquet", PredictOptions())
    assert (strange / "thesis.txt").read_text() == "mine"
    (strange / "about.json").write_text('{"title": "mine"}')
    with pytest.raises(OptionError, match="in the way"):
        predict_table(classifier, samples, tmp_path / "other.parquet", PredictOptions())
    assert (strange / "thesis.txt").read_text() == "mine"
    (tmp_path / "third.parquet.parts").mkdir()  # as a command leaves it that is killed at its beginning
    assert predict_table(classifier, samples, tmp_path / "third.parquet", PredictOptions()).images == 49


def test_the_command_writes_a_parquet_file(small_run: Path, photos: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(cli, ["predict", str(small_run), str(photos), "--out", "p.parquet"])
    assert done.output == "48 images; saved in p.parquet\n"
    assert len(parquet.read_table("p.parquet")) == 48
    for arguments, said in (
        (["--out", "p.csv"], "expected a name that ends in .parquet"),
        (["--out", "p.parquet", "--csv", "p.csv"], "leave --csv and --explain out"),
        (["--on", "ray"], "--on ray goes with --out predictions.parquet"),
    ):
        refused = runner.invoke(cli, ["predict", str(small_run), str(photos), *arguments])
        assert isinstance(refused.exception, OptionError) and said in str(refused.exception)


def test_an_evaluation_on_the_cluster_is_that_of_this_machine(
    two_nodes: Any, small_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "discs" / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    monkeypatch.setattr(evaluation, "_WINDOW", 10)
    classifier = load(small_run)
    far = evaluation.ask(classifier, photos, on="ray")
    near = evaluation.ask(classifier, photos)
    assert (far.contents, far.facts, far.skipped) == (near.contents, near.facts, near.skipped)
    assert np.allclose(far.probabilities, near.probabilities, atol=1e-4)


# --- seconds


def test_a_plan_says_seconds_by_nodes(two_nodes: Any, photos: Path) -> None:
    done = CliRunner().invoke(
        cli, ["plan", str(photos), "--backbones", "builtin@64", "--depths", "all", "--on", "ray"]
    )
    assert re.search(r"^on ray, by nodes like these: 1: .* s, 2: .* s, 4: ", done.output, re.MULTILINE)


def test_more_nodes_take_fewer_seconds_until_the_command_is_the_limit() -> None:
    found = seconds_by_nodes(
        {"features": 50_000.0, "train": 7.0},
        images=10_000_000,
        cores_of_node=1,
        nodes=(1, 10, 10_000, 20_000),
    )
    assert found[1] == pytest.approx(10 * found[10], rel=0.01)
    assert found[20_000] == found[10_000] > 10_000_000 / 512 * 0.004


# --- comparisons


def test_candidates_are_trained_on_the_cluster_as_here(
    two_nodes: Any, photos: Path, small_shards: None, one_thread: None
) -> None:
    candidates = grid(
        backbones=["builtin"],
        depths=["all", 5],
        heads=["ridge", "softmax"],
        size=SIZE,
        epochs=2,
        images=[4, None],
    )
    options: dict[str, Any] = {"seeds": 2, "precision": "f32"}
    far = headstart.compare(photos, candidates, on="ray", out="far", **options)
    near = headstart.compare(photos, candidates, out="near", **options)
    trained = [(trial.candidate, trial.seed, trial.images) for trial in far.trials]
    assert trained == [(trial.candidate, trial.seed, trial.images) for trial in near.trials]
    assert len(trained) == 11  # the ridge head on all images has nothing random in it
    for there, here in zip(far.trials, near.trials, strict=True):
        assert there.log_loss == pytest.approx(here.log_loss, rel=1e-3, abs=1e-4), there.candidate.name
    assert far.split == near.split and any(note.startswith("ray: ") for note in far.notes)


def test_a_budget_and_a_cluster_exclude_each_other(photos: Path) -> None:
    with pytest.raises(OptionError, match=r"a budget leaves none out; drop one"):
        headstart.compare(photos, grid(backbones=["builtin"], size=SIZE), on="ray", budget="1m")


def test_a_prediction_for_a_cluster_counts_its_cores_and_its_start(cluster: Place) -> None:
    here = CostEstimate({"features": 1000.0, "train": 5.0}, 0.1)
    there = cluster.estimated(here, images=100_000)
    assert there.phases["train"] == 5.0 and HERE.estimated(here, images=100_000) == here
    assert there.phases["features"] == pytest.approx(1000.0 * cores() / cluster.workers, rel=0.1)
