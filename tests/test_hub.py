"""The Hugging Face hub: what goes up says nothing of this machine, and what comes down predicts the same."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

import headstart
from headstart.errors import OptionError, RunError
from headstart.exports.hub import _without_folders, pull, push
from headstart.runs import RunStore, read_run
from hub_server import TOKEN, Hub, hub_server

HEADSTART = Path(sys.executable).with_name("headstart")


@pytest.fixture
def hub() -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="needs headstart[hub]")
    with hub_server() as found:
        yield found


def command(hub: Hub, *words: object, token: str = TOKEN, **more: str) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment = os.environ | own | more
    return subprocess.run(
        [HEADSTART, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )


def test_what_is_pushed_is_pulled_predicts_the_same_and_tells_nothing_of_this_machine(
    hub: Hub, small_run: Path, photos: Path, tmp_path: Path
) -> None:
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    refused = command(hub, "push", small_run, "me/shapes", token="wrong", **cache)
    assert refused.returncode == 2 and "me/shapes: the hub says" in refused.stderr, refused.stderr
    nowhere = command(hub, "push", small_run, "me/shapes", HF_ENDPOINT="http://127.0.0.1:9", **cache)
    assert nowhere.returncode == 2 and "refused" in nowhere.stderr and "Traceback" not in nowhere.stderr
    done = command(hub, "push", small_run, "me/shapes", **cache)
    assert done.returncode == 0 and done.stdout == f"{hub.address}/me/shapes\n", done.stderr
    files = hub.files["me/shapes"]
    assert set(files) == {"model.onnx", "classifier.json", "run.json", "README.md"}
    assert hub.private["me/shapes"]
    told = b"".join(data for name, data in files.items() if name != "model.onnx").decode()
    run = read_run(small_run)
    for secret in (str(Path(run.source or "").parent), os.uname().nodename, "/000.jpg"):
        assert secret not in told, secret
    assert json.loads(files["run.json"])["source"] is None and not json.loads(files["run.json"])["machine"]
    header, text = files["README.md"].decode().removeprefix("---\n").split("\n---\n", 1)
    facts = yaml.safe_load(header)
    assert facts["pipeline_tag"] == "image-classification" and facts["library_name"] == "headstart"
    (metric,) = facts["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == run.accuracy["test"]
    assert "## Limits" in text and "headstart pull me/shapes" in text and "predict.py" not in text

    done = command(hub, "pull", "me/shapes", **cache)
    assert done.stdout.startswith("saved in runs/shapes; "), done.stderr
    images = photos / "bars"
    same = headstart.load("runs/shapes").predict_proba(images)
    np.testing.assert_array_equal(same, headstart.load(small_run).predict_proba(images))
    assert RunStore().find(run.id).path == Path("runs/shapes").absolute()
    hub.files.clear()
    offline = command(hub, "pull", "me/shapes", "--out", "again", **cache | {"HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0 and Path("again/model.onnx").is_file(), offline.stderr
    taken = command(hub, "pull", "me/shapes", **cache)
    assert taken.returncode == 2 and "is there already" in taken.stderr


def test_paths_of_this_machine_lose_their_folders_and_addresses_stay() -> None:
    files = ["../acme/net.onnx", "/home/john doe/acme/net.onnx"]
    for text, told in (
        ("../acme/net.onnx", "net.onnx"),
        ("~/acme/net.onnx", "net.onnx"),
        ("weights of /home/john doe/acme/net.onnx", "weights of net.onnx"),
        ("weights:/srv/acme/net.onnx", "weights:net.onnx"),
        ("https://example.org/a/b and s3://bucket/x/y", "https://example.org/a/b and s3://bucket/x/y"),
    ):
        assert _without_folders({text: [text]}, files) == {told: [told]}


def test_a_repository_without_a_classifier_and_one_that_is_not_here_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_run: Path
) -> None:
    pytest.importorskip("huggingface_hub", reason="needs headstart[hub]")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OptionError, match="expected OWNER/NAME"):
        push(small_run, "flowers")
    with pytest.raises(OptionError, match="not in this machine's cache"):
        pull("me/none", out=tmp_path / "run")
    snapshot = tmp_path / "models--me--odd/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--me--odd/refs").mkdir()
    (tmp_path / "models--me--odd/refs/main").write_text("0" * 40)
    with pytest.raises(RunError, match="no classifier in it"):
        pull("me/odd", out=tmp_path / "run")
    shutil.copy(small_run / "model.onnx", snapshot)
    (snapshot / "classifier.json").write_text('{"classes": 3}')
    with pytest.raises(RunError, match="missing or damaged"):
        pull("me/odd", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
