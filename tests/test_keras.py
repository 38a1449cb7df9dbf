"""The Keras room: what `fit` gives is what ``model.fit`` gives, and the frozen part runs once per image."""

import gc
import importlib.util
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="needs headstart[keras]")
pytest.importorskip("tensorflow", reason="the tests run on Keras's TensorFlow backend")

import headstart.keras as subject  # noqa: E402
from headstart.backbones.keras_graph import open_model  # noqa: E402
from headstart.errors import OptionError  # noqa: E402
from headstart.keras import execution  # noqa: E402
from headstart.keras.cutting import cut_model  # noqa: E402
from headstart.keras.translation import translate  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras and TensorFlow, not ours

layers = keras.layers
SIDE, IMAGES, CLASSES = 16, 48, 3


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))


def images(count: int = IMAGES, *, side: int = SIDE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = rng.normal(0, 1, (count, side, side, 3)) + labels[:, None, None, None] * 0.3
    return pixels.astype(np.float32), labels


def base(*, side: int = SIDE) -> Any:
    """A small network with batch normalisation and a residual."""
    inputs = keras.Input((side, side, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn1")(x)
    first = layers.ReLU(6.0, name="relu1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="conv2")(first)
    x = layers.BatchNormalization(name="bn2")(x)
    x = layers.Add(name="add")([first, x])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(12, 3, activation="relu", name="conv3")(x)
    return keras.Model(inputs, x, name="base")


def classifier(*, thaw: tuple[str, ...] = (), dropout: float = 0.0, optimizer: Any = "adam") -> Any:
    """A frozen `base` with a head, compiled; the same weights every time."""
    keras.utils.set_random_seed(7)
    inner = base()
    for layer in inner.layers:
        layer.trainable = layer.name in thaw
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.GlobalAveragePooling2D()(inner(inputs, training=False))
    x = layers.Dropout(dropout)(x)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax", name="head")(x))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def tiny(optimizer: Any = "adam") -> Any:
    """The smallest model with a frozen part: quick to compile."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(4, 3, strides=4, activation="relu", trainable=False)(inputs)
    model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def both_ways(
    make: Callable[[], Any],
    *data: Any,
    tolerance: float = 1e-4,
    weights: float = 1e-3,
    cache: bool | str = "auto",
    **settings: Any,
) -> tuple[Any, Any, Any]:
    """Train through ``model.fit`` and `fit`; their histories must agree. Returns both, and ours."""
    settings = {"epochs": 3, "batch_size": 16, "verbose": 0, **settings}
    theirs, ours = make(), make()
    keras.utils.set_random_seed(1)
    expected = theirs.fit(*data, **settings)
    keras.utils.set_random_seed(1)
    found = subject.fit(ours, *data, cache=cache, **settings)
    assert found.headstart.cached, found.headstart.reason
    assert found.epoch == expected.epoch
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=tolerance, atol=1e-6, err_msg=name)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=weights)
    return ours, theirs, found


# The same numbers


def test_losses_and_metrics_equal_those_of_model_fit() -> None:
    x, y = images()
    ours, theirs, history = both_ways(lambda: classifier(dropout=0.3), x, y, validation_split=0.25)
    assert history.headstart.computed == IMAGES
    assert ours.history is history
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adamw", "nadam", "adagrad", "ftrl", "lion"])
def test_every_optimizer_takes_the_same_steps(optimizer: str) -> None:
    x, y = images()
    both_ways(lambda: tiny(optimizer), x, y, epochs=2)


def test_thawed_layers_behind_the_cut_train_as_in_model_fit() -> None:
    x, y = images()
    thaw = ("conv2", "bn2", "conv3")
    ours, _, history = both_ways(lambda: classifier(thaw=thaw), x, y)
    before, after = classifier(thaw=thaw).get_layer("base"), ours.get_layer("base")
    for name in ("conv1", "bn1"):
        for one, other in zip(before.get_layer(name).weights, after.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(before.get_layer("bn2").moving_mean, after.get_layer("bn2").moving_mean)
    assert history.headstart.runtime.startswith("keras"), "batch statistics amplify the last digit"


def test_training_goes_on_with_model_fit_from_the_same_optimizer_state() -> None:
    x, y = images()
    ours, theirs, _ = both_ways(tiny, x, y)
    assert int(ours.optimizer.iterations) == 9
    again, expected = (m.fit(x, y, epochs=2, shuffle=False, verbose=0) for m in (ours, theirs))
    np.testing.assert_allclose(again.history["loss"], expected.history["loss"], rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}},
        {"sample_weight": np.linspace(0.1, 2.0, IMAGES)},
        {"initial_epoch": 2, "epochs": 4},
        {"steps_per_epoch": 2},
        {"shuffle": False},
        {"validation_data": images(20, seed=3), "validation_freq": 2, "validation_batch_size": 7},
        {"validation_data": images(20, seed=3), "validation_steps": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_settings_behave_as_in_model_fit(settings: dict[str, Any]) -> None:
    x, y = images()
    both_ways(tiny, x, y, **settings)


def test_regularisers_and_compiled_options_count_as_in_model_fit() -> None:
    def make() -> Any:
        frozen = tiny().layers[1]
        inputs = keras.Input((SIDE, SIDE, 3))
        x = layers.Flatten()(frozen(inputs))
        x = layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1", activation="relu")(x)
        model = keras.Model(inputs, layers.Dense(CLASSES)(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]
        model.compile("adam", loss, metrics=metrics, weighted_metrics=["accuracy"], steps_per_execution=2)
        return model

    x, y = images()
    both_ways(make, x, y)


def test_positional_arguments_and_unknown_names_are_those_of_model_fit() -> None:
    x, y = images()
    assert len(subject.fit(tiny(), x, y, 16, 2, 0).epoch) == 2
    with pytest.raises(TypeError, match="epoch_count"):
        subject.fit(tiny(), x, y, epoch_count=3)


# Graphs


def two_inputs(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"left": x, "right": x[:, ::-1], "numbers": x[:, 0, 0]}


def branched() -> Any:
    """Three inputs (the tail reads one directly), a shared base, two tensors across the cut, two outputs."""
    keras.utils.set_random_seed(7)
    inner = base()
    inner.trainable = False
    left, right = (keras.Input((SIDE, SIDE, 3), name=name) for name in ("left", "right"))
    numbers = keras.Input((3,), name="numbers")
    pool = layers.GlobalAveragePooling2D()
    one, other = pool(inner(left)), pool(inner(right))
    joined = layers.Concatenate()([layers.Dense(4)(one), layers.Dense(4)(other), numbers])
    outputs = [layers.Dense(CLASSES, name="classes")(joined), layers.Dense(1, name="value")(other)]
    model = keras.Model([left, right, numbers], outputs)
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
    model.compile("adam", losses, metrics=[["accuracy"], ["mae"]], loss_weights=[1.0, 0.5])
    return model


def test_several_inputs_outputs_and_tensors_and_a_shared_base() -> None:
    x, y = images()
    cut = cut_model(branched())
    assert len(cut.cached) == 2
    assert cut.raw == (2,)
    both_ways(branched, two_inputs(x), [y, y.astype("float32")])


def test_sequential_and_unbuilt_models() -> None:
    def make() -> Any:
        keras.utils.set_random_seed(7)
        frozen = layers.Conv2D(4, 3, activation="relu", trainable=False)
        model = keras.Sequential([frozen, layers.GlobalMaxPooling2D(), layers.Dense(CLASSES)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return model

    x, y = images()
    both_ways(make, x, y)


def test_the_users_model_keeps_its_graph() -> None:
    x, y = images()
    model = classifier()
    nodes = {layer.name: len(layer._inbound_nodes) for layer in model.layers}
    subject.fit(model, x, y, epochs=2, verbose=0)
    assert {layer.name: len(layer._inbound_nodes) for layer in model.layers} == nodes
    assert model.get_layer("head").output.shape == (None, CLASSES)


def test_an_opened_model_computes_what_the_model_computes() -> None:
    x, _ = images(4)
    model = classifier(dropout=0.5)
    graph = open_model(model)
    assert [call.name for call in graph.calls][:3] == ["conv1", "bn1", "relu1"]
    np.testing.assert_array_equal(graph.run([x], training=False)[0], model(x, training=False))


# What is judged


@pytest.mark.parametrize(
    ("layer", "last", "reason"),
    [
        (lambda: layers.Dropout(0.0), "head", "train"),
        (lambda: layers.Dropout(0.5, name="noise"), "noise", "random"),
        (lambda: layers.GaussianNoise(0.5, name="noise"), "noise", "random"),
        (lambda: layers.BatchNormalization(name="stats", center=False, scale=False), "stats", "statistics"),
        (lambda: layers.BatchNormalization(trainable=False), "head", "train"),
        (lambda: layers.ActivityRegularization(0.1, name="loss"), "loss", "loss"),
    ],
    ids=["dropout-0", "dropout", "noise", "bn", "bn-frozen", "activity"],
)
def test_layers_are_judged_by_what_they_do_in_training(
    layer: Callable[[], Any], last: str, reason: str
) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(4, 3, trainable=False)(inputs)
    x = layers.Flatten()(layer()(x))
    cut = cut_model(keras.Model(inputs, layers.Dense(CLASSES, name="head")(x)))
    assert [stop.layer for stop in cut.stops] == [last]
    assert reason in cut.stops[0].reason


def augmented(*, behind: bool = False) -> Any:
    keras.utils.set_random_seed(7)
    inner = base()
    inner.trainable = False
    flip = layers.RandomFlip(name="flip", seed=3)
    parts = [inner, flip] if behind else [flip, inner]
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), *parts, layers.Flatten(), layers.Dense(CLASSES, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_random_augmentation_in_front_is_refused_by_name_with_the_ways_out() -> None:
    x, y = images()
    with pytest.raises(OptionError, match=r"'flip'.*'conv1'.*fixed views.*behind.*cache=False"):
        subject.fit(augmented(), x, y, epochs=2, verbose=0)
    assert not subject.fit(augmented(), x, y, epochs=1, verbose=0, cache=False).headstart.cached


def test_random_augmentation_behind_the_cut_stays_random_and_equal() -> None:
    x, y = images()
    both_ways(lambda: augmented(behind=True), x, y)


class Doubling(layers.Layer):
    """The user's own layer, which does the same in training."""

    def call(self, x: Any) -> Any:
        return x * 2.0


class Secret(layers.Layer):
    """The user's own layer, which does something else in training."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        return x * 2.0 if training else x


@pytest.mark.parametrize(("own", "cached_layers"), [(Doubling, 3), (Secret, 1)])
def test_layers_of_the_users_are_tried_and_leave_nothing_on_disk(
    own: type, cached_layers: int, tmp_path: Path
) -> None:
    def make() -> Any:
        keras.utils.set_random_seed(7)
        inputs = keras.Input((SIDE, SIDE, 3))
        x = own(name="own")(layers.Conv2D(4, 3, trainable=False)(inputs))
        model = keras.Model(inputs, layers.Dense(CLASSES)(layers.Flatten()(x)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        return model

    x, y = images()
    both_ways(make, x, y)
    probed = execution.without_surprises(cut_model(make()), [x[:4]])
    assert len(probed.prefix.calls) == cached_layers
    if own is Doubling:
        assert not list((tmp_path / "cache").rglob("data.mdb"))


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


# The cache


def test_a_second_fit_computes_nothing_and_other_weights_compute_everything() -> None:
    x, y = images()
    model = classifier()
    assert subject.fit(model, x, y, epochs=2, verbose=0).headstart.computed == IMAGES
    assert subject.fit(model, x, y, epochs=2, verbose=0).headstart.computed == 0
    assert subject.fit(classifier(), x[::-1], y[::-1], epochs=2, verbose=0).headstart.reused == IMAGES
    more = np.concatenate([x, x[:4] + 1])
    assert subject.fit(model, more, np.arange(52) % 3, epochs=2, verbose=0).headstart.computed == 4
    kernel = model.get_layer("base").get_layer("conv1").kernel
    kernel.assign(kernel * 1.5)
    assert subject.fit(model, x, y, epochs=2, verbose=0).headstart.computed == IMAGES


def test_a_model_that_was_trained_can_be_forgotten() -> None:
    x, y = images()
    model = tiny()
    subject.fit(model, x, y, epochs=2, verbose=0)
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None


def test_thawing_between_two_fits_moves_the_cut() -> None:
    x, y = images()

    ours, theirs, _ = both_ways(classifier, x, y, epochs=2)
    for model in (ours, theirs):
        model.get_layer("base").get_layer("conv3").trainable = True
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    keras.utils.set_random_seed(2)
    expected = theirs.fit(x, y, epochs=2, verbose=0)
    keras.utils.set_random_seed(2)
    found = subject.fit(ours, x, y, epochs=2, verbose=0)
    assert found.headstart.computed == IMAGES
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-4)


def test_openvino_gives_way_to_keras_where_the_numbers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images()
    run = execution.OpenVinoRunner.run
    monkeypatch.setattr(
        execution.OpenVinoRunner, "run", lambda self, arrays: [out * 1.001 for out in run(self, arrays)]
    )
    _, _, history = both_ways(tiny, x, y, tolerance=1e-6)
    assert history.headstart.runtime.startswith("keras")


def test_bytes_are_cast_as_keras_casts_them() -> None:
    x, y = images()
    both_ways(tiny, (x * 40).clip(0, 255).astype(np.uint8), y)


# Sources of batches


def test_tf_data_is_read_in_its_own_order() -> None:
    import tensorflow as tf

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
    import tensorflow as tf

    x, y = images()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    flipped = data.map(lambda a, b: (tf.image.random_flip_left_right(a), b))
    with pytest.raises(OptionError, match=r"random_flip.*cache=False"):
        subject.fit(tiny(), flipped, epochs=2, verbose=0)


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
        histories.append(fit(model, loader, epochs=3, verbose=0, shuffle=False))
    assert histories[1].headstart.computed == IMAGES
    np.testing.assert_allclose(histories[1].history["loss"], histories[0].history["loss"], rtol=1e-4)


# Keras's own applications

HEAVY = pytest.mark.skipif(not os.environ.get("HEADSTART_SLOW"), reason="set HEADSTART_SLOW=1 to run it")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("MobileNetV2", 32),
        pytest.param("MobileNetV3Small", 32, marks=HEAVY),
        pytest.param("EfficientNetB0", 32, marks=HEAVY),
        pytest.param("ResNet50", 32, marks=HEAVY),
        pytest.param("ResNet152", 32, marks=HEAVY),
        pytest.param("DenseNet121", 32, marks=HEAVY),
        pytest.param("InceptionV3", 75, marks=HEAVY),
        pytest.param("Xception", 71, marks=HEAVY),
        pytest.param("VGG16", 32, marks=HEAVY),
        pytest.param("NASNetMobile", 32, marks=HEAVY),
        pytest.param("ConvNeXtTiny", 32, marks=HEAVY),
    ],
)
def test_applications_of_keras_train_equally(name: str, side: int) -> None:
    x, y = images(24, side=side)

    def make() -> Any:
        keras.utils.set_random_seed(7)
        application = getattr(keras.applications, name)
        inner = application(weights=None, include_top=False, input_shape=(side, side, 3))
        enliven(inner, x)
        inner.trainable = False
        inputs = keras.Input((side, side, 3))
        features = layers.GlobalAveragePooling2D()(inner(inputs, training=False))
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(features))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    translate(cut_model(make()).prefix, [(-1, side, side, 3)])  # raises where a layer is unknown
    # EfficientNet's dropped connections end its prefix so early that "auto" would not cache.
    _, _, history = both_ways(make, x, y, epochs=2, batch_size=8, cache=True)
    assert history.headstart.computed == 24


def enliven(model: Any, x: np.ndarray) -> None:
    """Give batch normalisations the statistics of ``x``: random weights alone let signals die or explode."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    for layer in norms:
        layer.momentum = 0.99


def test_the_dozen_lines_on_five_random_images_print_the_same_distribution() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (5, SIDE, SIDE, 3)).astype(np.float32)
    theirs, ours = tiny(), tiny()
    start = ours.get_weights()
    printed: list[list[float]] = [[], []]
    for _ in range(20):
        y = rng.integers(0, CLASSES, 5)
        for values, model, fit in ((printed[0], theirs, keras.Model.fit), (printed[1], ours, subject.fit)):
            model.set_weights(start)
            extra = {"cache": True} if fit is subject.fit else {}
            values.append(fit(model, x, y, epochs=1, verbose=0, **extra).history["accuracy"][0])
    assert printed[0] == printed[1]
    assert len(set(printed[0])) > 1


# Where it does not pay, and what is shown


def test_where_caching_cannot_pay_it_says_so_and_calls_model_fit(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = images()
    model = classifier(thaw=("conv1",))
    history = subject.fit(model, x, y, epochs=2, verbose=2)
    assert not history.headstart.cached
    assert len(history.epoch) == 2
    assert "'conv1': its weights train" in capsys.readouterr().err
    assert "one epoch" in subject.fit(tiny(), x, y, verbose=0).headstart.reason
    subject.fit(tiny(), x, y, epochs=2, verbose=2)
    assert f"caching the frozen part of {IMAGES} images" in capsys.readouterr().err
    assert subject.fit(tiny(), x, y, verbose=0).headstart.cached, "now one epoch finds its features"


def test_a_train_step_of_the_users_is_left_alone() -> None:
    class Own(keras.Model):
        def train_step(self, data: Any) -> Any:
            return {"answer": 42.0}

    model = classifier()
    own = Own(model.input, model.output)
    own.compile("adam", "sparse_categorical_crossentropy")
    x, y = images()
    history = subject.fit(own, x, y, epochs=2, verbose=0)
    assert "train_step" in history.headstart.reason
    assert history.history["answer"] == [42.0, 42.0]


def test_prefix_shows_what_would_be_cached_before_anything_runs(tmp_path: Path) -> None:
    found = subject.prefix(classifier(), epochs=10)
    kernels = SIDE * SIDE * (3 * 3 * 3 * 8 + 3 * 3 * 8) + 6 * 6 * 3 * 3 * 8 * 12
    assert found.multiply_adds == (kernels, kernels + 12 * CLASSES)
    assert found.bytes_per_image == 12 * 4
    assert [shape for _, shape in found.tensors] == [(12,)]
    assert found.speed_up > 9
    assert "cached per image: 48 bytes" in str(found)
    assert "'head': its weights train" in str(found)
    assert not (tmp_path / "cache").exists()
    assert "nothing to cache" in str(subject.prefix(classifier(thaw=("conv1",))))


# Classifiers


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the ONNX writer, about NumPy
def test_a_keras_model_becomes_a_classifier(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    from headstart.classifier import load

    model = tiny()
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
    expected = model.predict(pixels / np.float32(127.5) - 1, verbose=0)
    nodes = len(model.layers[-1]._inbound_nodes)
    classifier = subject.to_classifier(model, tmp_path / "saved", classes=["a", "b", "c"])
    np.testing.assert_allclose(load(tmp_path / "saved").probabilities(pixels), expected, atol=1e-4)
    assert classifier.predict(pixels)[0].label == "abc"[int(expected[0].argmax())]
    assert len(model.layers[-1]._inbound_nodes) == nodes


def test_a_model_that_is_no_image_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected 2 classes"):
        subject.to_classifier(tiny(), tmp_path, classes=["a", "b"])
    with pytest.raises(OptionError, match=r"pixels: expected 0\.\.255"):
        subject.to_classifier(tiny(), tmp_path, classes=["a", "b", "c"], pixels="0..2")
    inputs = keras.Input((SIDE, SIDE, 3))
    bare = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs)))
    with pytest.raises(OptionError, match="logits=True"):
        subject.to_classifier(bare, tmp_path, classes=["a", "b", "c"])
