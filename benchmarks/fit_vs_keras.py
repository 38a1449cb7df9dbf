"""The job that a Keras user writes against `headstart fit`: same files, architecture and weights.

Whole processes are timed, from start to printed accuracy, in turn, so that a machine whose speed drifts
cannot favour one side. *Cold* is an empty feature cache; the network's own file is prepared on both sides
(Keras's weights converted, our graph exported), since that happens once per machine; what it costs us the
first time is printed apart. *Warm* is the second fit on the same images.

    python benchmarks/fit_vs_keras.py --data ../shared/data [--runs 3] [--tiny 5000] [--keras PYTHON]

Needs the extra ``torch`` (to export the graph once) and an interpreter that has TensorFlow and Keras.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

SIZE = 96
EPOCHS = 10
COPIES = "copies"

KERAS_JOB = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import tensorflow as tf
folder, weights, size, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
load = lambda part: keras.utils.image_dataset_from_directory(
    folder + "/" + part, image_size=(size, size), batch_size=32, seed=0, verbose=False)
train, validation = load("train"), load("val")
classes = len(train.class_names)
train, validation = (d.cache().prefetch(tf.data.AUTOTUNE) for d in (train, validation))
base = keras.applications.MobileNetV2(input_shape=(size, size, 3), include_top=False, weights=weights)
base.trainable = False
inputs = keras.Input((size, size, 3))
x = keras.applications.mobilenet_v2.preprocess_input(inputs)
x = base(x, training=False)
x = keras.layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(train, validation_data=validation, epochs=epochs, verbose=0)
print(history.history["val_accuracy"][-1])
"""


def main() -> None:
    """Prepare both sides, time them in turn, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="holds flowers/, the weights and Tiny ImageNet"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only-tiny", action="store_true", help="leave the flowers out")
    parser.add_argument(
        "--tiny", type=int, default=5000, help="training images of the larger folder; 0 for none"
    )
    parser.add_argument(
        "--images",
        type=int,
        help="so many flowers: copies with another comment, which take as long to decode",
    )
    parser.add_argument("--keras", default=sys.executable, help="interpreter that has Keras")
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert_weights(options.data / "mobilenetv2-imagenet.safetensors", options.convert)
        return
    weights = options.data / "mobilenetv2-imagenet.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        os.environ["HEADSTART_CACHE"], os.environ["HEADSTART_HOME"] = str(work / "cache"), str(work / "home")
        (work / "job.py").write_text(KERAS_JOB)
        keras_weights = work / "mobilenetv2.weights.h5"
        timed([options.keras, __file__, "--data", str(options.data), "--convert", str(keras_weights)])
        first = timed([headstart(), "backbones", str(weights), "--size", str(SIZE), "--json"])[0]
        print(f"exporting our graph, once per machine: {first:.1f} s")
        flowers = options.data / "flowers"
        if options.images:
            flowers = copied(flowers, work / COPIES, images=options.images)
        folders = [] if options.only_tiny else [("flowers", flowers)]
        if options.tiny:
            folders.append(
                (f"tiny-{options.tiny}", tiny_folder(options.data, work / "tiny", images=options.tiny))
            )
        for name, folder in folders:
            compare(name, folder, weights, keras_weights, work=work, runs=options.runs, keras=options.keras)


def compare(
    name: str, folder: Path, weights: Path, keras_weights: Path, *, work: Path, runs: int, keras: str
) -> None:
    """Time both sides in turn; refuse to print a ratio unless our accuracy is at most a point below."""
    theirs_command = [
        keras,
        str(work / "job.py"),
        str(folder),
        str(keras_weights),
        str(SIZE),
        str(EPOCHS),
    ]
    ours = {"softmax": ["--head", "softmax", "--epochs", str(EPOCHS)], "ridge": ["--head", "ridge"]}
    if folder.name == COPIES:
        del ours["ridge"]  # its penalty is chosen by leaving one image out, which says nothing beside a copy
    seconds: dict[str, list[float]] = {"keras": []}
    accuracy: dict[str, float] = {}
    for number in range(runs):
        spent, printed = timed(theirs_command)
        seconds["keras"].append(spent)
        accuracy["keras"] = float(printed)
        for head, arguments in ours.items():
            shutil.rmtree(work / "cache" / "features", ignore_errors=True)
            for state in ("cold", "warm"):
                out = work / "runs" / f"{name}-{head}-{state}-{number}"
                command = [headstart(), "fit", str(folder), "--backbone", str(weights), "--size", str(SIZE)]
                spent, printed = timed([*command, *arguments, "--out", str(out), "--json"])
                seconds.setdefault(f"{head} {state}", []).append(spent)
                accuracy[f"{head} {state}"] = json.loads(printed)["accuracy"]["validation"]
    images = sum(1 for _ in folder.rglob("*.jpg"))
    print(f"\n{name}: {images:,} images, {SIZE} px, {EPOCHS} epochs; median of {runs} whole processes")
    for job, spent_list in seconds.items():
        if accuracy[job] < accuracy["keras"] - 0.01:
            raise SystemExit(
                f"{job}: accuracy {accuracy[job]:.3f}, Keras {accuracy['keras']:.3f}: not the same job"
            )
        ratios = [theirs / own for theirs, own in zip(seconds["keras"], spent_list, strict=True)]
        print(
            f"  {job:13} {statistics.median(spent_list):7.2f} s  accuracy {accuracy[job]:.3f}  "
            f"{statistics.median(ratios):6.1f} times ({min(ratios):.1f} to {max(ratios):.1f})"
        )


def headstart() -> str:
    """The command that is installed beside this interpreter."""
    return str(Path(sys.executable).with_name("headstart"))


def timed(command: list[str]) -> tuple[float, str]:
    """Wall-clock seconds of a whole process, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} …: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return spent, done.stdout


def convert_weights(source: Path, target: Path) -> None:
    """The weights in Keras's layout, so that both sides compute the same network."""
    import keras
    import numpy as np
    from safetensors.numpy import load_file

    values = {name: array.astype(np.float32) for name, array in load_file(source).items()}
    model = keras.applications.MobileNetV2(input_shape=(SIZE, SIZE, 3), include_top=False, weights=None)
    for layer in model.layers:
        name = _timm_name(layer.name)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.set_weights([values[f"{name}.weight"].transpose(2, 3, 0, 1)])
        elif isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([values[f"{name}.weight"].transpose(2, 3, 1, 0)])
        elif isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (
                values[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
            )
            # timm's epsilon is 1e-5; the scale absorbs the difference.
            layer.set_weights(
                [gamma * np.sqrt((variance + layer.epsilon) / (variance + 1e-5)), beta, mean, variance]
            )
    model.save_weights(target)


def _timm_name(layer: str) -> str:
    """Keras's layer name in timm's naming: `block_3_project_BN` is `blocks.2.0.bn3`."""
    plain = {"Conv1": "conv_stem", "bn_Conv1": "bn1", "Conv_1": "conv_head", "Conv_1_bn": "bn2"}
    if layer in plain:
        return plain[layer]
    if layer.startswith("expanded_conv_"):
        parts = {"depthwise": "conv_dw", "depthwise_BN": "bn1", "project": "conv_pw", "project_BN": "bn2"}
        return "blocks.0.0." + parts.get(layer.removeprefix("expanded_conv_"), "-")
    if not layer.startswith("block_"):
        return "-"
    _, number, part = layer.split("_", 2)
    sizes, stage, index = (2, 3, 4, 3, 3, 1), 1, int(number) - 1
    while index >= sizes[stage - 1]:
        index -= sizes[stage - 1]
        stage += 1
    parts = {
        "expand": "conv_pw",
        "expand_BN": "bn1",
        "depthwise": "conv_dw",
        "depthwise_BN": "bn2",
        "project": "conv_pwl",
        "project_BN": "bn3",
    }
    return f"blocks.{stage}.{index}.{parts.get(part, '-')}"


def copied(source: Path, target: Path, *, images: int) -> Path:
    """The same JPEGs several times, each with a comment of its own behind the first marker."""
    files = sorted(source.rglob("*.jpg"))
    for number in range(images):
        file = files[number % len(files)]
        content, comment = file.read_bytes(), b"\xff\xfe\x00\x06" + number.to_bytes(4)
        place = target / file.relative_to(source).with_name(f"{number}.jpg")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content[:2] + comment + content[2:])
    return target


def tiny_folder(data: Path, target: Path, *, images: int) -> Path:
    """JPEGs of Tiny ImageNet classes (Keras reads no WebP), 500 training images a class."""
    from PIL import Image

    with zipfile.ZipFile(data / "tiny-imagenet-64.zip") as archive:
        members = sorted(name for name in archive.namelist() if name.endswith(".webp"))
        classes = sorted({name.split("/")[1] for name in members})[: images // 500]
        for name in members:
            split, label, file = name.split("/")
            if label in classes:
                place = target / split / label
                place.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as stream:
                    Image.open(stream).convert("RGB").save(place / f"{Path(file).stem}.jpg", quality=90)
    return target


if __name__ == "__main__":
    main()
