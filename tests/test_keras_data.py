"""What surrounds a Keras training: callbacks, progress, and sources of batches, as in ``model.fit``."""

import importlib.util
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import OptionError
from keras_models import IMAGES, images, keras, subject, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras and TensorFlow, not ours


# Callbacks


def test_callbacks_see_the_users_model_and_act_on_it(tmp_path: Path) -> None:
    class Watcher(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append((self.model, sorted(logs), self.params["steps"]))
            predictions.append(self.model.predict(x[:4], verbose=0))

    def callbacks() -> list[Any]:
        return [
            Watcher(),
            keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=0, min_delta=10.0),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            *([keras.callbacks.TensorBoard(tmp_path / "board")] if tensorboard else []),
        ]

    tensorboard = importlib.util.find_spec("tensorboard") is not None
    x, y = images()
    results = []
    for fit in (keras.Model.fit, subject.fit):
        seen, predictions = [], []
        model = tiny()
        keras.utils.set_random_seed(1)
        fit(model, x, y, epochs=3, batch_size=16, verbose=0, callbacks=callbacks())
        assert [entry[0] for entry in seen] == [model] * 3
        reloaded = keras.models.load_model(tmp_path / "best.keras")
        np.testing.assert_array_equal(reloaded.predict(x, verbose=0), model.predict(x, verbose=0))
        assert bool(list((tmp_path / "board").rglob("events*"))) == tensorboard
        log = np.genfromtxt(tmp_path / "log.csv", delimiter=",", skip_header=1)
        rate = float(model.optimizer.learning_rate)
        results.append((log, [entry[1:] for entry in seen], np.stack(predictions), rate))
    (theirs, ours) = results
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4)
    assert ours[1] == theirs[1]
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)
    assert ours[3] == theirs[3] < 1e-3


def test_callbacks_on_batches_see_every_batch_and_its_numbers() -> None:
    class Watcher(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen[-1].append((batch, logs["loss"]))

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            seen[-1].append((batch, logs["loss"]))

    x, y = images()
    seen: list[list[tuple[int, float]]] = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        seen.append([])
        keras.utils.set_random_seed(1)
        fit(model, x, y, epochs=2, verbose=0, batch_size=8, validation_split=0.25, callbacks=[Watcher()])
    assert len(seen[1]) == 2 * (5 + 2)
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-4)


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_verbose_shows_what_model_fit_shows(verbose: int, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = images()
    shown = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        keras.utils.set_random_seed(1)
        fit(model, x, y, epochs=2, batch_size=16, verbose=verbose)
        lines = re.split(r"[\n\r\x08]+", capsys.readouterr().out)
        # The progress bar redraws as time allows; what an epoch ends with does not depend on time,
        # but for the spaces that cover what a longer time left behind.
        ends = [line for line in lines if re.search(r"Epoch|3/3", line)]
        shown.append([re.sub(r"\d+u?m?s(/step|/epoch)?", "", line).rstrip() for line in ends])
    assert shown[0][-1:] == shown[1][-1:]
    assert bool(shown[1]) == bool(verbose)
    assert [line for line in shown[0] if "Epoch" in line] == [line for line in shown[1] if "Epoch" in line]


def test_early_stopping_stops_at_the_same_epoch_and_restores_the_same_weights() -> None:
    x, y = images()
    stops = lambda: keras.callbacks.EarlyStopping(  # noqa: E731
        "val_loss", patience=1, min_delta=5.0, restore_best_weights=True
    )
    found = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        keras.utils.set_random_seed(1)
        history = fit(model, x, y, epochs=9, verbose=0, validation_split=0.25, callbacks=[stops()])
        found.append((len(history.epoch), model.get_weights()[-2]))
    assert found[0][0] == found[1][0] < 9
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-4)


# Sources of batches


def test_tf_data_is_read_in_its_own_order() -> None:
    tf = pytest.importorskip("tensorflow", reason="reads tf.data")

    x, y = images()
    histories = []
    for fit in (keras.Model.fit, subject.fit):
        keras.utils.set_random_seed(1)
        data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(IMAGES).batch(16)
        held_out = tf.data.Dataset.from_tensor_slices(images(20, seed=3)).batch(8)
        model = tiny()
        keras.utils.set_random_seed(2)
        histories.append(fit(model, data, epochs=3, verbose=0, shuffle=False, validation_data=held_out))
    expected, found = histories
    assert found.headstart.cached, found.headstart.reason
    assert found.headstart.computed == IMAGES + 20
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=1e-4, err_msg=name)


def test_random_steps_of_tf_data_are_refused_by_name() -> None:
    tf = pytest.importorskip("tensorflow", reason="reads tf.data")

    x, y = images()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    flipped = data.map(lambda a, b: (tf.image.random_flip_left_right(a), b))
    with pytest.raises(OptionError, match=r"random_flip.*cache=False"):
        subject.fit(tiny(), flipped, epochs=2, verbose=0)


def test_batches_of_tf_data_that_do_not_fit_the_model_are_refused_in_one_line() -> None:
    tf = pytest.importorskip("tensorflow", reason="reads tf.data")

    x, y = images()
    single = tf.data.Dataset.from_tensor_slices((x, y))
    with pytest.raises(OptionError, match=r"wants \(None, 16, 16, 3\), got \(16, 16, 3\); batch it"):
        subject.fit(tiny(), single, epochs=2, verbose=0)
    cropped = tf.data.Dataset.from_tensor_slices((x[:, :9], y)).batch(16)
    with pytest.raises(OptionError, match=r"wants \(None, 16, 16, 3\), got \(None, 9, 16, 3\)$"):
        subject.fit(tiny(), cropped, epochs=2, verbose=0)


def test_a_layer_of_the_users_and_a_model_that_waits_for_its_input_take_sources_of_batches() -> None:
    def make() -> Any:
        keras.utils.set_random_seed(7)
        halve = keras.layers.Lambda(lambda x: x / 2)
        frozen = keras.layers.Conv2D(4, 3, trainable=False)
        model = keras.Sequential([halve, frozen, keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    histories = []
    for fit in (keras.Model.fit, subject.fit):
        model = make()
        keras.utils.set_random_seed(1)
        histories.append(fit(model, Batches(), epochs=3, verbose=0))
    assert histories[1].headstart.cached, histories[1].headstart.reason
    assert histories[1].headstart.computed == IMAGES
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-4)


class Batches(keras.utils.PyDataset):
    """Batches of 16; with ``noise``, different ones every time."""

    def __init__(self, *, noise: float = 0.0) -> None:
        super().__init__()
        self.x, self.y = images()
        self.noise, self.epochs = noise, 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(16 * index, 16 * index + 16)
        return self.x[rows] + self.noise * np.float32(np.random.rand()), self.y[rows]

    def on_epoch_end(self) -> None:
        self.epochs += 1


def test_a_py_dataset_is_read_in_its_own_order() -> None:
    histories, sources = [], []
    for fit in (keras.Model.fit, subject.fit):
        model, source = tiny(), Batches()
        keras.utils.set_random_seed(1)
        histories.append(fit(model, source, epochs=3, verbose=0))
        sources.append(source)
    assert histories[1].headstart.computed == IMAGES
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-4)
    assert sources[0].epochs == sources[1].epochs
    with pytest.raises(OptionError, match=r"Batches gives different images"):
        subject.fit(tiny(), Batches(noise=1.0), epochs=2, verbose=0)


def test_a_torch_loader_is_read_in_its_own_order() -> None:
    torch = pytest.importorskip("torch")
    x, y = images()
    histories = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        torch.manual_seed(4)
        items = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
        loader = torch.utils.data.DataLoader(items, batch_size=16, shuffle=True)
        held_out = torch.utils.data.DataLoader(items, batch_size=16, shuffle=True)
        data = {"x": loader, "validation_data": held_out, "shuffle": False}
        histories.append(fit(model, **data, epochs=4, verbose=0))
    assert histories[1].headstart.computed == IMAGES
    # The order differs from epoch to epoch, and one draw too few changes the loss by more than 1e-4.
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(histories[1].history[name], histories[0].history[name], rtol=1e-5)


def test_looking_at_a_torch_data_set_draws_nothing_that_the_training_would_draw() -> None:
    torch = pytest.importorskip("torch")
    x, y = images()

    class Drawing(torch.utils.data.Dataset):  # type: ignore[misc]
        """Draws for every item, though nothing comes of it."""

        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            torch.rand(()), np.random.rand(), random.random()
            return torch.from_numpy(x[index]), y[index]

    drawn = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        keras.utils.set_random_seed(4)
        torch.manual_seed(4)  # Keras seeds PyTorch on its own backend alone
        loader = torch.utils.data.DataLoader(Drawing(), batch_size=16, shuffle=True)
        history = fit(model, loader, epochs=3, verbose=0, shuffle=False)
        drawn.append([history.history["loss"], float(torch.rand(())), np.random.rand(), random.random()])
    assert history.headstart.cached
    np.testing.assert_allclose(drawn[1][0], drawn[0][0], rtol=1e-4)
    assert drawn[1][1:] == drawn[0][1:]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # how Keras learns where such a stream ends
def test_a_torch_stream_without_a_length_is_read_in_its_own_order() -> None:
    torch = pytest.importorskip("torch")
    x, y = images()

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter(zip(torch.from_numpy(x), torch.from_numpy(y), strict=True))

    histories = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        loader = torch.utils.data.DataLoader(Stream(), batch_size=16)
        histories.append(fit(model, loader, epochs=3, verbose=0, shuffle=False))
    assert histories[1].headstart.computed == IMAGES
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-4)


def test_a_torch_data_set_that_changes_is_refused() -> None:
    torch = pytest.importorskip("torch")
    x, y = images()

    class Noisy(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return torch.from_numpy(x[index]) + torch.randn(()), y[index]

    with pytest.raises(OptionError, match=r"Noisy gives different images.*cache=False"):
        subject.fit(tiny(), torch.utils.data.DataLoader(Noisy(), batch_size=16), epochs=2, verbose=0)


def test_a_generator_is_read_in_its_own_order() -> None:
    x, y = images()

    def batches() -> Any:
        while True:
            for start in range(0, IMAGES, 16):
                yield x[start : start + 16], y[start : start + 16]

    histories = []
    for fit in (keras.Model.fit, subject.fit):
        model = tiny()
        histories.append(fit(model, batches(), epochs=3, steps_per_epoch=3, verbose=0, shuffle=False))
    assert histories[1].headstart.computed == IMAGES
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-4)
