"""The Keras room: what `fit` gives is what ``model.fit`` gives, and the frozen part runs once per image."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones.keras.graph import open_model
from headstart.errors import OptionError
from headstart.keras import execution
from headstart.keras.cutting import cut_model
from keras_models import (
    CLASSES,
    IMAGES,
    ONNX_WRITER,
    SIDE,
    base,
    both_ways,
    classifier,
    images,
    keras,
    layers,
    subject,
    tiny,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras and TensorFlow, not ours


# The same numbers


def test_losses_and_metrics_equal_those_of_model_fit() -> None:
    x, y = images()
    ours, theirs, history = both_ways(lambda: classifier(dropout=0.3), x, y, validation_split=0.25)
    assert history.headstart.computed == IMAGES
    assert ours.history is history
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-4)


OPTIMIZERS = sorted(
    name
    for name, kind in vars(keras.optimizers).items()
    if isinstance(kind, type)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_takes_the_same_steps(optimizer: str) -> None:
    x, y = images()
    options = {"exclude_embeddings": False} if optimizer == "Muon" else {}
    both_ways(lambda: tiny(getattr(keras.optimizers, optimizer)(**options)), x, y, epochs=2)


def test_an_optimizer_with_everything_takes_the_same_steps() -> None:
    def make() -> Any:
        rate = keras.optimizers.schedules.CosineDecay(0.1, 9)
        options = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3, "clipnorm": 1.0}
        optimizer = keras.optimizers.SGD(rate, **options, use_ema=True, ema_momentum=0.9)
        return tiny(keras.optimizers.LossScaleOptimizer(optimizer))

    x, y = images()
    ours, theirs, _ = both_ways(make, x, y)
    for one, other in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_optimizer_for_each_variable_takes_the_same_steps() -> None:
    def make() -> Any:
        if not hasattr(keras.optimizers, "MultiOptimizer"):
            pytest.skip("this Keras has one optimizer for all variables")
        choose = {"bias": keras.optimizers.SGD(0.5), "kernel": keras.optimizers.Adam()}
        return tiny(keras.optimizers.MultiOptimizer(lambda variable: choose[variable.name]))

    x, y = images()
    both_ways(make, x, y)


def test_metrics_of_many_kinds_equal_those_of_model_fit() -> None:
    def make() -> Any:
        model = tiny()
        metrics = [
            "accuracy",
            keras.metrics.AUC(name="auc"),
            keras.metrics.Precision(name="precision"),
            keras.metrics.Recall(class_id=1, name="recall"),
            keras.metrics.F1Score("macro", name="f1"),
            keras.metrics.TopKCategoricalAccuracy(2, name="top"),
            keras.metrics.KLDivergence(name="divergence"),
        ]
        model.compile("adam", "categorical_crossentropy", metrics=metrics)
        return model

    x, y = images()
    _, _, history = both_ways(make, x, np.eye(CLASSES, dtype="float32")[y], validation_split=0.25)
    assert len(history.history) == 16


def test_fine_tuned_layers_behind_the_cut_train_as_in_model_fit() -> None:
    x, y = images()
    fine_tune = ("conv2", "bn2", "conv3")
    ours, _, history = both_ways(lambda: classifier(fine_tune=fine_tune), x, y)
    before, after = classifier(fine_tune=fine_tune).get_layer("base"), ours.get_layer("base")
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
        steps = 1 if keras.backend.backend() == "torch" else 2  # PyTorch knows no more than one
        metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]
        model.compile("adam", loss, metrics=metrics, weighted_metrics=["accuracy"], steps_per_execution=steps)
        return model

    x, y = images()
    both_ways(make, x, y)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_as_in_model_fit(policy: str) -> None:
    def make() -> Any:
        model = tiny()
        model.compile("adam", "sparse_categorical_crossentropy", auto_scale_loss=False)
        return model

    x, y = images()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        ours, theirs, history = both_ways(make, x, y, epochs=2)
    finally:
        keras.config.set_dtype_policy(before)
    assert history.headstart.bytes_per_image == 2 * 4 * 4 * 4
    assert len(ours.optimizer.variables) == len(theirs.optimizer.variables), "the loss was not to be scaled"


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
    found, expected = graph.run([x], training=False)[0], model(x, training=False)
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (found, expected)))


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
        (
            lambda: layers.SpectralNormalization(layers.Conv2D(4, 1), name="norm", trainable=False),
            "norm",
            "updates its weights",
        ),
    ],
    ids=["dropout-0", "dropout", "noise", "bn", "bn-frozen", "activity", "spectral-frozen"],
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


def augmented(*, behind: bool = False, inside: bool = False) -> Any:
    keras.utils.set_random_seed(7)
    inner = base()
    inner.trainable = False
    flip: Any = layers.RandomFlip(name="flip", seed=3)
    if inside:
        flip = layers.Pipeline([layers.Rescaling(0.5), flip], name="several")
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
    with pytest.raises(OptionError, match=r"'several' augments at random in front of .*'conv1'"):
        subject.prefix(augmented(inside=True))
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


def test_constants_that_layers_are_called_with_are_part_of_what_the_cache_knows() -> None:
    def make(mean: np.ndarray) -> Any:
        keras.utils.set_random_seed(7)
        inputs = keras.Input((SIDE, SIDE, 3))
        x = layers.Conv2D(4, 3, trainable=False)(keras.ops.subtract(inputs, mean))
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    x, y = images()
    other = np.zeros((SIDE, SIDE, 3), np.float32)
    other[6:10, 6:10] = 3.0  # in the middle, which the shortened text of an array leaves out
    both_ways(lambda: make(np.zeros_like(other)), x, y, epochs=2)
    _, _, history = both_ways(lambda: make(other), x, y, epochs=2)
    assert history.headstart.computed == IMAGES


def test_statistics_given_to_a_normalisation_are_known_again() -> None:
    def make(mean: float) -> Any:
        keras.utils.set_random_seed(7)
        inputs = keras.Input((SIDE, SIDE, 3))
        scaled = layers.Normalization(mean=[mean, 0.1, 0.2], variance=[1.0, 2.0, 3.0])(inputs)
        x = layers.Conv2D(4, 3, trainable=False)(scaled)
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    x, y = images()
    computed = [
        subject.fit(make(mean), x, y, epochs=2, verbose=0).headstart.computed for mean in (0.0, 0.0, 0.5)
    ]
    assert computed == [IMAGES, 0, IMAGES]


def test_a_model_that_was_trained_can_be_forgotten() -> None:
    x, y = images()
    model = tiny()
    subject.fit(model, x, y, epochs=2, verbose=0)
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None


def test_fine_tuning_between_two_fits_moves_the_cut() -> None:
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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others trace anew, or fail")
@pytest.mark.parametrize(("layer", "trainable"), [("conv3", True), ("head", False)])
def test_fine_tuning_or_freezing_without_compiling_changes_nothing_as_in_model_fit(
    layer: str, trainable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = images()

    def losses(fit: Any, *, after: Any) -> list[list[float]]:
        model = classifier()
        keras.utils.set_random_seed(1)
        after(model, x, y, epochs=2, verbose=0)
        found = model.get_layer("base").get_layer(layer) if layer == "conv3" else model.get_layer(layer)
        found.trainable = trainable
        return [fit(model, x, y, verbose=verbose, epochs=1).history["loss"] for verbose in (2, 1)]

    expected = losses(keras.Model.fit, after=keras.Model.fit)
    for first in (subject.fit, keras.Model.fit):
        capsys.readouterr()
        found = losses(subject.fit, after=first)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert found[0] > found[1], "the head trains on"
        assert "frozen or fine-tuned after the model was compiled" in capsys.readouterr().err


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


@pytest.mark.parametrize("family", ["resnet50", "densenet", "mobilenet_v2"])
def test_what_preprocess_input_adds_to_a_model_runs_in_openvino(family: str) -> None:
    def make() -> Any:
        keras.utils.set_random_seed(7)
        inputs = keras.Input((SIDE, SIDE, 3))
        x = layers.Resizing(12, 12)(inputs)
        x = getattr(keras.applications, family).preprocess_input(x)
        x = layers.Conv2D(4, 3, trainable=False, activation="tanh")(x)
        model = keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    x, y = images()
    _, _, history = both_ways(make, (x * 40 + 128).clip(0, 255), y, epochs=2, runtime="openvino")
    assert history.headstart.runtime.startswith("openvino")


# Where it does not pay, and what is shown


def test_where_caching_cannot_pay_it_says_so_and_calls_model_fit(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = images()
    model = classifier(fine_tune=("conv1",))
    history = subject.fit(model, x, y, epochs=2, verbose=2)
    assert not history.headstart.cached
    assert len(history.epoch) == 2
    assert "'conv1': its weights train" in capsys.readouterr().err
    assert "one epoch" in subject.fit(tiny(), x, y, verbose=0).headstart.reason
    subject.fit(tiny(), x, y, epochs=2, verbose=2)
    assert f"caching the frozen part of {IMAGES} images" in capsys.readouterr().err
    assert subject.fit(tiny(), x, y, verbose=0).headstart.cached, "now one epoch finds its features"


def test_a_loop_of_single_epochs_is_cached_from_the_second_on() -> None:
    x, y = images()
    model = classifier()
    done = [subject.fit(model, x, y, epochs=e + 1, initial_epoch=e, verbose=0).headstart for e in range(3)]
    assert [saving.cached for saving in done] == [False, True, True]
    assert [saving.reused for saving in done] == [0, 0, IMAGES]


def test_a_model_that_is_not_compiled_or_fed_what_it_lacks_is_refused_in_one_line() -> None:
    x, y = images()
    model = tiny()
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        subject.fit(keras.Model(model.input, model.output), x, y, epochs=2)
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
    output = layers.Dense(1)(layers.Dense(2, trainable=False)(layers.Add()(list(inputs.values()))))
    named = keras.Model(inputs, output)
    named.compile("adam", "mse")
    for keys in (("left",), ("left", "right", "id")):
        with pytest.raises(OptionError, match=f"expected inputs left, right; got {', '.join(keys)}$"):
            subject.fit(named, dict.fromkeys(keys, np.zeros((8, 4), np.float32)), np.zeros(8), epochs=2)


def test_a_train_step_of_the_users_is_left_alone() -> None:
    class Own(keras.Model):
        def train_step(self, *given: Any) -> Any:
            logs = {"answer": keras.ops.convert_to_tensor(42.0)}
            return (logs, given[0]) if keras.backend.backend() == "jax" else logs  # JAX hands its state on

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
    assert "nothing to cache" in str(subject.prefix(classifier(fine_tune=("conv1",))))
    assert "1 epoch: 1.0 times as fast" in str(subject.prefix(classifier(), epochs=1))
    assert "does not pay" in str(subject.prefix(classifier(), epochs=1))
    assert "does not pay" not in str(found)


# Classifiers


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the ONNX writer, about NumPy
def test_a_keras_model_becomes_a_classifier(tmp_path: Path) -> None:
    pytest.importorskip(ONNX_WRITER)
    from headstart.classifier import load

    model = tiny()
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
    expected = model.predict(pixels / np.float32(127.5) - 1, verbose=0)
    nodes = len(model.layers[-1]._inbound_nodes)
    classifier = subject.to_classifier(model, tmp_path / "saved", classes=["a", "b", "c"])
    np.testing.assert_allclose(load(tmp_path / "saved").probabilities(pixels), expected, atol=1e-4)
    assert classifier.predict(pixels)[0].label == "abc"[int(expected[0].argmax())]
    assert len(model.layers[-1]._inbound_nodes) == nodes


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the ONNX writer, about NumPy
def test_a_keras_model_has_a_report_once_its_evaluation_is_recorded(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip(ONNX_WRITER)
    import headstart
    from headstart.reports import find, report

    made = subject.to_classifier(tiny(), tmp_path / "saved", classes=["squares", "discs", "bars"])
    run = headstart.record_evaluation(made, photos)
    right = [Path(each.path).parent.name == each.label for each in made.predict(photos)]
    assert run.accuracy == {"validation": None, "test": pytest.approx(np.mean(right))}
    assert run.config.backbone.startswith("keras:") and run.to_dict()["depth"] is None
    facts = report(find(tmp_path / "saved")).facts
    assert np.sum(facts["confusion"]) == 48 and ["trained", "elsewhere"] in facts["setting"]


def test_a_model_that_is_no_image_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="expected 2 classes"):
        subject.to_classifier(tiny(), tmp_path, classes=["a", "b"])
    with pytest.raises(OptionError, match=r"pixels: expected 0\.\.255"):
        subject.to_classifier(tiny(), tmp_path, classes=["a", "b", "c"], pixels="0..2")
    inputs = keras.Input((SIDE, SIDE, 3))
    bare = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs)))
    with pytest.raises(OptionError, match="logits=True"):
        subject.to_classifier(bare, tmp_path, classes=["a", "b", "c"])
