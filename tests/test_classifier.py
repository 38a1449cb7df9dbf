"""The artifact: saved, reloaded, and used by others."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.classifier import Classifier, check_parity
from headstart.data.dataset import Skipped, list_images
from headstart.errors import DatasetError, ImageError, OptionError, ParityError, RunError


@pytest.fixture
def fitted(own_run: Path) -> Classifier:
    return headstart.load(own_run)


def test_probabilities_add_up_and_the_top_is_sorted(fitted: Classifier, photos: Path) -> None:
    for prediction in fitted.predict(photos, top=3):
        shares = [share for _, share in prediction.top]
        assert sum(shares) == pytest.approx(1.0, abs=1e-4)
        assert shares == sorted(shares, reverse=True)
        assert prediction.top[0] == (prediction.label, prediction.probability)


def test_files_arrays_and_sequences_are_predicted_alike(fitted: Classifier, photos: Path) -> None:
    image = photos / "bars" / "000.jpg"
    pixels = np.asarray(Image.open(image).convert("RGB"))
    from_file, from_list, from_array = (
        fitted.predict(given)[0].probability for given in (image, [image], pixels)
    )
    assert from_list == from_file
    assert from_array == pytest.approx(from_file, abs=0.05)  # the file may be decoded at reduced scale


def test_pixels_come_one_by_one_stacked_or_grey_and_other_things_are_named(fitted: Classifier) -> None:
    pixels = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    alone = fitted.predict(pixels)[0].probability
    for several in (np.stack([pixels, pixels]), [pixels, pixels]):
        assert [found.probability for found in fitted.predict(several)] == pytest.approx(
            [alone] * 2, abs=1e-3
        )
    assert len(fitted.predict(pixels[..., 0])) == 1
    for other in (Image.fromarray(pixels), [Image.fromarray(pixels)], None, [b"jpeg"], 7):
        with pytest.raises(DatasetError, match="expected paths of images, or pixels as uint8"):
            fitted.predict(other)


def test_one_image_and_many_agree(fitted: Classifier, photos: Path) -> None:
    together = fitted.predict(photos / "bars")
    alone = [fitted.predict(photos / "bars" / Path(item.path).name)[0] for item in together]
    for a, b in zip(together, alone, strict=True):
        assert a.label == b.label and a.probability == pytest.approx(b.probability, abs=1e-3)


def test_an_unreadable_image_raises_in_predict_and_is_reported_by_predict_each(
    fitted: Classifier, photos: Path
) -> None:
    bad = photos / "bars" / "000.jpg"
    bad.write_bytes(b"\xff\xd8\xff\xe0 cut off")
    with pytest.raises(ImageError, match=r"000\.jpg"):
        fitted.predict(bad)
    found = list(fitted.predict_each(list_images([photos / "bars"])))
    assert [isinstance(item, Skipped) for item in found] == [True] + 15 * [False]


def test_more_images_than_one_window_keep_their_order(
    fitted: Classifier, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.classifier.classifier._WINDOW", 7)
    found = [item.path for item in fitted.predict(photos)]
    assert found == [sample.name for sample in list_images([photos])]


def test_the_saved_graph_runs_in_plain_openvino(fitted: Classifier, photos: Path) -> None:
    import openvino

    pixels = np.stack([item for item in fitted.render(list_images([photos])) if not isinstance(item, str)])
    model = openvino.Core().compile_model(fitted.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model({"pixels": pixels})["probabilities"]
    np.testing.assert_allclose(found, fitted.probabilities(pixels), atol=1e-4)


def test_saving_elsewhere_keeps_every_prediction(fitted: Classifier, photos: Path, tmp_path: Path) -> None:
    copy = fitted.save(tmp_path / "copy")
    assert headstart.load(copy).predict(photos) == fitted.predict(photos)


@pytest.mark.parametrize("damage", ["missing model", "missing facts", "broken facts", "other facts"])
def test_a_damaged_folder_is_one_clear_error(fitted: Classifier, damage: str) -> None:
    folder = fitted.model.parent
    if damage == "missing model":
        fitted.model.unlink()
    elif damage == "missing facts":
        (folder / "classifier.json").unlink()
    else:
        (folder / "classifier.json").write_text("{" if damage == "broken facts" else "[]")
    with pytest.raises(RunError):
        headstart.load(folder)


def test_a_damaged_model_is_one_clear_error(fitted: Classifier, photos: Path) -> None:
    fitted.model.write_bytes(fitted.model.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"model\.onnx is damaged"):
        headstart.load(fitted.model.parent).predict(photos)


def test_fewer_than_one_label_an_image_is_refused(fitted: Classifier, photos: Path) -> None:
    with pytest.raises(OptionError, match="top=0"):
        fitted.predict(photos, top=0)


def test_a_model_that_disagrees_with_training_is_an_error(fitted: Classifier, photos: Path) -> None:
    samples = list_images([photos])[:4]
    wrong = np.full((4, 3), 1 / 3, np.float32)
    with pytest.raises(ParityError, match="differ by"):
        check_parity(samples, wrong, where=fitted.model.parent)


def test_rounding_in_bf16_may_move_one_image_between_two_classes_and_not_all(
    fitted: Classifier, photos: Path
) -> None:
    samples = list_images([photos / "bars"])
    pixels = [found for found in fitted.render(samples) if not isinstance(found, str)]
    said = fitted.probabilities(np.stack(pixels))
    moved = np.array([0.1, -0.1, 0.0], np.float32)
    one, every = said.copy(), said + moved
    one[0] += moved
    assert check_parity(samples, one, where=fitted.model.parent, computed="bf16") == pytest.approx(
        0.1, abs=0.01
    )
    for expected, precision in ((every, "bf16"), (one, "f32")):
        with pytest.raises(ParityError, match="differ by"):
            check_parity(samples, expected, where=fitted.model.parent, computed=precision)


def test_loading_and_predicting_needs_no_pickle_and_no_pytorch(fitted: Classifier, photos: Path) -> None:
    code = (
        "import sys, pickle\n"
        "def refuse(*a, **k): raise AssertionError('unpickled')\n"
        "pickle.load = pickle.loads = refuse\n"
        "import headstart\n"
        f"print(headstart.load({str(fitted.model.parent)!r}).predict({str(photos / 'bars')!r})[0].label)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [fitted.predict(photos / "bars")[0].label, "False"]


def test_what_is_saved_is_plain_data(fitted: Classifier) -> None:
    facts: dict[str, Any] = json.loads((fitted.model.parent / "classifier.json").read_text())
    assert facts["classes"] == ["bars", "discs", "squares"] and facts["preprocess"]["size"] == 64


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_forked_after_a_prediction_predicts_and_ends(
    fitted: Classifier, photos: Path, tmp_path: Path
) -> None:
    run = fitted.save(tmp_path / "run")
    code = """
import os, sys
from pathlib import Path
import headstart
classifier = headstart.load(sys.argv[1])
files = sorted(Path(sys.argv[2]).rglob("*.jpg"))[:3]
def labels():
    return [found.label for found in classifier.predict(files) + classifier.predict(files[0])]
before = labels()
child = os.fork()
if child == 0:
    sys.exit(labels() != before)  # and not os._exit: what the parent has made is taken down too
assert os.waitpid(child, 0)[1] == 0
idle = os.fork()
if idle == 0:
    sys.exit()
assert os.waitpid(idle, 0)[1] == 0
assert labels() == before
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(run), str(photos)]
    subprocess.run(command, check=True, timeout=120)
