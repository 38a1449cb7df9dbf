"""`fit`: what ``model.fit`` does, with the frozen part computed once per image.

The tail is a Keras model of its own that runs the user's layers from the cut on, and shares the user's
optimizer, loss, metrics and variables, in the user's order. Callbacks see the user's model. So what Keras
does, Keras still does; only the part that would give the same numbers again is left out.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from headstart.backbones.keras.graph import functional_of
from headstart.keras.caching import Counts, Features, Watch, fingerprint
from headstart.keras.cutting import Cut
from headstart.keras.execution import BATCH, Array
from headstart.keras.inputs import flat_arrays, number_of_steps, one_or_list, shape_of_one, wrap_source
from headstart.keras.worth import Verdict, epochs_of, judge

_SHARED = ("_compile_loss", "_compile_metrics", "_loss_tracker")
"""What ``compile`` made of the user's loss and metrics."""

_AT_ONCE = 64
"""Steps between which Ctrl-C is noticed, where nobody else looks."""

_CHANGED = "a layer was frozen or fine-tuned after the model was compiled"

_BATCH_HOOKS = [f"on_{kind}batch_{moment}" for kind in ("", "train_", "test_") for moment in ("begin", "end")]


@dataclass(frozen=True)
class Saving:
    """What `fit` did: ``history.headstart``.

    Attributes:
        cached: whether the frozen part was computed once per image; if not, ``model.fit`` was called.
        reason: why, or why not.
        reused: images whose features the cache held.
        computed: images whose features were computed now.
        bytes_per_image: what the cache holds for one image.
        runtime: what computed the features.
    """

    cached: bool
    reason: str
    reused: int = 0
    computed: int = 0
    bytes_per_image: int = 0
    runtime: str = ""


def fit(
    model: Any,
    x: Any = None,
    y: Any = None,
    *arguments: Any,
    cache: bool | str = "auto",
    runtime: str = "auto",
    **named: Any,
) -> Any:
    """Train a compiled Keras model as ``model.fit`` does, running its frozen part once per image.

    The same seed, data and settings give the same losses and metrics as ``model.fit``, to float tolerance.
    Where caching would not pay, it says so and calls ``model.fit``.

    Args:
        model: a compiled Functional or Sequential model; its own layers are trained.
        x: as for ``model.fit``: arrays, a ``tf.data.Dataset``, a ``keras.utils.PyDataset``, a PyTorch
            ``DataLoader``.
        y: as for ``model.fit``.
        *arguments: as for ``model.fit``, in its order.
        cache: "auto" decides what pays; True caches wherever possible; False calls ``model.fit``.
        runtime: what computes the features: "openvino", "keras", or "auto", which takes Keras where a deep
            tail would amplify differences in the last digit, else OpenVINO. OpenVINO gives way to Keras
            wherever it does not compute the same.
        **named: as for ``model.fit``.

    Returns:
        Keras's ``History``; its attribute ``headstart`` is a `Saving`.

    Raises:
        OptionError: random augmentation stands in front of the frozen layers, or comes with the data.
    """
    bound = inspect.signature(keras.Model.fit).bind(model, x, y, *arguments, **named)
    bound.apply_defaults()
    settings = dict(bound.arguments)
    settings.pop("self", None)
    if not model.compiled:
        return model.fit(**settings)  # Keras says what is missing
    _build(model, settings["x"])
    memory = _memory_of(model)
    traced = _traced(model, memory.session)
    if traced and settings["verbose"] != 0:
        print(f"headstart: {_CHANGED}; as with model.fit, that counts after model.compile", file=sys.stderr)
    again, memory.epochs = epochs_of(settings) == 1 == memory.epochs, epochs_of(settings)
    verdict = judge(model, settings, cache=cache, runtime=runtime, traced=traced, again=again)
    if verdict.cut is None:
        return _uncached(model, settings, verdict.reason)
    trained = list(model.optimizer._trainable_variables) if traced else None
    return _cached(model, settings, verdict.cut, verdict=verdict, trained=trained)


def _build(model: Any, x: Any) -> None:
    """Build a Sequential model that waits for its first input, as ``model.fit`` would."""
    if isinstance(model, keras.Sequential) and not model.built:
        shape = shape_of_one(x)
        if shape is not None:
            model.build((None, *shape))


def _traced(model: Any, last: _Session | None) -> Any:
    """What the compiled model trains, where that is not what its layers say now; None where they agree.

    TensorFlow traces the training once after ``compile``. A layer that is fine-tuned or frozen later changes
    nothing until the next ``compile``, neither in ``model.fit`` nor here.

    Returns:
        The cut that was traced, or the reason to leave everything to ``model.fit``, which has traced it.
    """
    optimizer = model.optimizer
    if keras.backend.backend() != "tensorflow" or model.run_eagerly or not getattr(optimizer, "built", False):
        return None
    trained = getattr(optimizer, "_trainable_variables", None)
    if not trained or list(map(id, trained)) == list(map(id, model.trainable_variables)):
        return None
    if last is not None and all(a is b for a, b in zip(_compiled(model), last.compiled, strict=False)):
        return last.cut
    return _CHANGED if model.train_function is not None else None


def _uncached(model: Any, settings: dict[str, Any], reason: str) -> Any:
    if settings["verbose"] != 0:
        print(f"headstart: not cached: {reason}; training with model.fit", file=sys.stderr)
    history = model.fit(**settings)
    history.headstart = Saving(cached=False, reason=reason)
    return history


def _cached(
    model: Any, settings: dict[str, Any], cut: Cut, *, verdict: Verdict, trained: list[Any] | None
) -> Any:
    steps = number_of_steps(settings)
    batch, at_once = int(settings["batch_size"] or BATCH), _steps_at_once(model, settings, steps)
    session = _session(model, cut, runtime=verdict.runtime, batch=batch, at_once=at_once, trained=trained)
    session.features.counts, quiet = Counts(), settings["verbose"] == 0
    settings = {
        **settings,
        "x": session.swap(model, settings["x"], quiet=quiet),
        "validation_data": session.swap_validation(model, settings["validation_data"], quiet=quiet),
        "callbacks": _callbacks(model, settings, steps=steps),
    }
    with _in_step(session.tail, model):
        session.tail.fit(**settings)
    history = model.history
    history.headstart = Saving(cached=True, reason=verdict.reason, **asdict(session.features.counts))
    return history


def _steps_at_once(model: Any, settings: dict[str, Any], steps: int | None) -> int:
    """Steps to hand to TensorFlow in one go (Keras's ``steps_per_execution``), with the same numbers.

    A step of a small tail takes less time than starting it from Python, so they go in bunches wherever nobody
    looks in between: no progress bar, and no callback that acts on batches. Where the user sets a number of
    steps, a bunch could overrun it.
    """
    own = int(model.steps_per_execution)
    callbacks = keras.tree.flatten(settings["callbacks"] or [])
    watched = settings["verbose"] not in (0, 2) or any(map(_acts_on_batches, callbacks))
    counted = settings["steps_per_epoch"] or settings["validation_steps"]
    if (
        not steps
        or own != 1
        or watched
        or counted
        or model.run_eagerly
        or keras.backend.backend() != "tensorflow"
    ):
        return own
    return min(steps, _AT_ONCE)


def _acts_on_batches(callback: Any) -> bool:
    plain = keras.callbacks.Callback
    return not type(callback).__module__.startswith("keras.src.callbacks.history") and any(
        getattr(type(callback), name, None) is not getattr(plain, name) or name in vars(callback)
        for name in _BATCH_HOOKS
    )


def _callbacks(model: Any, settings: dict[str, Any], *, steps: int | None) -> Any:
    """The container that Keras would make, for the user's model."""
    if isinstance(settings["callbacks"], keras.callbacks.CallbackList):
        return settings["callbacks"]
    verbose = settings["verbose"]
    return keras.callbacks.CallbackList(
        settings["callbacks"],
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=settings["epochs"],
        steps=steps,
        model=model,
    )


@dataclass(frozen=True, eq=False)
class _Session:
    """What one model's calls of `fit` share while nothing about the model changes."""

    cut: Cut
    fingerprint: str | None
    features: Features
    tail: Any
    compiled: tuple[Any, ...]

    def swap(self, model: Any, x: Any, *, quiet: bool) -> Any:
        """The tail's inputs in place of the model's."""
        arrays = flat_arrays(model, x)
        if arrays is not None:
            return one_or_list(self._tail_inputs(arrays, watch=None if quiet else _show))
        return wrap_source(x, self._tail_inputs, model=model, outputs=self._outputs())

    def swap_validation(self, model: Any, data: Any, *, quiet: bool) -> Any:
        """As `swap`, for ``validation_data``."""
        if isinstance(data, tuple | list):
            return (self.swap(model, data[0], quiet=quiet), *data[1:])
        return None if data is None else self.swap(model, data, quiet=quiet)

    def _tail_inputs(self, arrays: list[Array], *, watch: Watch | None = None) -> list[Array]:
        return [*self.features.of(arrays, watch=watch), *(arrays[i] for i in self.cut.raw)]

    def _outputs(self) -> list[tuple[str, tuple[int | None, ...]]]:
        specs = [self.cut.graph.specs[key] for key in self.cut.tail.inputs]
        return [(spec.dtype, tuple(spec.shape[1:])) for spec in specs]


def _show(done: int, images: int, size: int) -> None:
    """One line before the first image; on a terminal also how far it is."""
    if done == 0:
        line = f"headstart: caching the frozen part of {images:,} images, {size / 1e6:,.1f} MB"
        print(line, file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        end = "\n" if done == images else ""
        print(f"\rheadstart: {done:,} of {images:,} images", end=end, file=sys.stderr, flush=True)


@dataclass
class _Memory:
    """What a model keeps from one call of `fit` to the next.

    Attributes:
        epochs: how many the last call was asked for.
        session: of the last call that cached.
    """

    epochs: int = 0
    session: _Session | None = None


def _memory_of(model: Any) -> _Memory:
    """A model's memory, an attribute of its own that Keras neither tracks nor saves."""
    if "_headstart" not in vars(model):
        object.__setattr__(model, "_headstart", _Memory())
    found: _Memory = vars(model)["_headstart"]
    return found


def _session(
    model: Any, cut: Cut, *, runtime: str, batch: int, at_once: int, trained: list[Any] | None
) -> _Session:
    """A session for the model as it is now; the last one where it still holds.

    ``trained`` are the variables that go on training whatever the layers say; None for what they say.
    """
    identity = fingerprint(cut.prefix)
    compiled = (*_compiled(model), at_once)
    memory = _memory_of(model)
    last = memory.session
    if last is not None and _same(last.cut, cut):
        same_weights = identity is not None and identity == last.fingerprint
        kept = same_weights and (runtime, batch) == (last.features.runtime, last.features.batch)
        features = last.features if kept else Features(cut, model.dtype_policy, runtime, batch)
        same_compile = all(a is b for a, b in zip(compiled, last.compiled, strict=True))
        tail = last.tail if same_compile else _tail_model(model, cut, at_once=at_once, trained=trained)
    else:
        features = Features(cut, model.dtype_policy, runtime, batch)
        tail = _tail_model(model, cut, at_once=at_once, trained=trained)
    memory.session = session = _Session(cut, identity, features, tail, compiled)
    return session


def _same(one: Cut, other: Cut) -> bool:
    """Whether two cuts of one model are at the same place, and the same variables train."""

    def identity(cut: Cut) -> list[Any]:
        trained = [v for call in cut.tail.calls for v in getattr(call.operation, "trainable_variables", ())]
        return [[id(call.arguments) for call in cut.tail.calls], list(map(id, trained)), cut.cached]

    return identity(one) == identity(other)


def _compiled(model: Any) -> tuple[Any, ...]:
    settings = (model.optimizer, model.run_eagerly, model.steps_per_execution, model.jit_compile)
    return (*settings, *(getattr(model, name) for name in _SHARED))


def _tail_model(model: Any, cut: Cut, *, at_once: int, trained: list[Any] | None) -> Any:
    """A model of the layers from the cut on, which trains the user's variables with the user's optimizer."""
    policy, structure = model.dtype_policy, functional_of(model).output  # type: ignore[union-attr]

    def delegate(name: str, default: Any = None) -> property:
        def put(self: Any, value: Any) -> None:
            if getattr(self, "_connected", False):
                setattr(model, name, value)

        return property(lambda self: getattr(model, name, default), put)

    class Tail(keras.Model):  # type: ignore[misc]
        # Callbacks set these on the user's model.
        stop_training = delegate("stop_training", False)
        stop_evaluating = delegate("stop_evaluating", False)
        history = delegate("history")
        _initial_epoch = delegate("_initial_epoch")
        # In the user's order, which the optimizer's state is in.
        trainable_variables = delegate("trainable_variables", []) if trained is None else trained
        trainable_weights = trainable_variables
        metrics = delegate("metrics", [])

        def __init__(self) -> None:
            super().__init__(name="headstart_tail", dtype=policy)
            layers = dict.fromkeys(call.operation for call in cut.tail.calls)
            self.parts = [layer for layer in layers if isinstance(layer, keras.layers.Layer)]
            self._convert_input_args = False  # each layer casts its own inputs, as in the user's model
            self.built = True

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            values = _standard(keras.tree.flatten(inputs), cut)
            found = cut.tail.run(values, training=training)
            packed = keras.tree.pack_sequence_as(structure, found)
            return packed[0] if isinstance(packed, list | tuple) and len(packed) == 1 else packed

    tail = Tail()
    _share_compiled(tail, model, at_once=at_once)
    tail._connected = True
    return tail


def _standard(values: Sequence[Any], cut: Cut) -> list[Any]:
    """Inputs that the tail reads directly, in the dtype and rank that the user's model turns them to."""
    found = list(values[: len(cut.cached)])
    for value, key in zip(values[len(cut.cached) :], cut.tail.inputs[len(cut.cached) :], strict=True):
        spec = cut.graph.specs[key]
        tensor = keras.ops.convert_to_tensor(value, dtype=spec.dtype)
        if len(tensor.shape) == len(spec.shape) - 1 and spec.shape[-1] == 1:
            tensor = keras.ops.expand_dims(tensor, -1)
        elif len(tensor.shape) == len(spec.shape) + 1 and tensor.shape[-1] == 1:
            tensor = keras.ops.squeeze(tensor, -1)
        found.append(tensor)
    return found


def _share_compiled(tail: Any, model: Any, *, at_once: int) -> None:
    """Let ``tail`` be compiled with the very objects that ``model`` is compiled with."""
    if hasattr(model, "output_names"):
        tail.output_names = model.output_names
    tail.compile(
        optimizer=model.optimizer,
        run_eagerly=model.run_eagerly,
        steps_per_execution=at_once,
        jit_compile=model.jit_compile,
        auto_scale_loss=False,  # where it is wanted, the user's optimizer scales already
    )
    for name in _SHARED:
        setattr(tail, name, getattr(model, name))


@contextlib.contextmanager
def _in_step(tail: Any, model: Any) -> Iterator[None]:
    """On JAX a model's variables are stale during an epoch until synchronised; let callbacks do that."""
    if keras.backend.backend() != "jax":
        yield
        return

    def synchronise() -> None:
        tail.jax_state_sync()
        type(model).jax_state_sync(model)  # after a callback's own predict or evaluate

    object.__setattr__(model, "jax_state_sync", synchronise)
    try:
        yield
    finally:
        object.__delattr__(model, "jax_state_sync")
