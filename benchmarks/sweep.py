"""A sweep of 3 backbones x 4 depths x 3 seeds as one comparison, against the same trainings one by one.

One by one means: the cache of features is empty before each training, as it is for tools that have none. What
is made once per machine (exported graphs, compiled networks) and the start of PyTorch are kept on both sides,
and neither side saves classifiers. The comparison runs several times, between parts of the other side; its
median counts. The results are checked: the same predictions, image by image.

    python benchmarks/sweep.py --data ../shared/data/flowers [--work FOLDER] [--limit 400] [--size 96]

With --work a stopped benchmark goes on where it was, given the same options again; results are in
FOLDER/sweep.jsonl.

Without --backbones it takes the built-in backbone and two architectures with random weights in local files,
since speed does not depend on the weights. Needs the extra ``torch``.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ledger import Ledger, workplace

SAME_PREDICTIONS = 0.99
"""Share of the validation images; a map computed together with others may differ in a last bit."""


def main() -> None:
    """Check, time both sides, print the ratio."""
    options = _options()
    with workplace(options.work) as work:
        os.environ["HEADSTART_CACHE"], os.environ["HEADSTART_HOME"] = str(work / "cache"), str(work / "home")
        from headstart.backbones import load_backbone
        from headstart.comparisons import Candidate, grid
        from headstart.data.dataset import read_dataset

        dataset = read_dataset(options.data)
        if options.limit:
            dataset = spread(dataset, options.limit)
        candidates: list[Candidate] = []
        for backbone in options.backbones or ("builtin", *random_files(work, options.architectures)):
            stages = len(load_backbone(backbone, size=options.size).stages)
            depths = ["all", *(stages - fine_tuned for fine_tuned in range(1, options.depths))]
            candidates += grid(backbones=[backbone], size=options.size, depths=depths, epochs=options.epochs)
        few = spread(dataset, max(64, 10 * len(dataset.classes)))
        sweep(few, candidates, options=options, work=work)  # graphs and compiled networks, once per machine
        for candidate in candidates:
            single(few, candidate, seed=0, precision=options.precision)
        ledger = Ledger(work / "sweep.jsonl", total=options.depths + len(candidates) * options.seeds)
        sweeps, alone_seconds, alone_work, same = [], 0.0, 0.0, []
        for turn in range(options.depths):  # in turns, so that both sides see the same machine
            key = f"together, turn {turn + 1}"
            if key not in ledger:
                ledger.add(key, sweep(dataset, candidates, options=options, work=work))
            sweeps.append(ledger[key])
            print(f"{ledger.position()} {key}: {sweeps[-1][0]:.1f} s", flush=True)
            part = candidates[turn :: options.depths]
            seconds, spent, alone = one_by_one(dataset, part, options=options, ledger=ledger)
            alone_seconds, alone_work = alone_seconds + seconds, alone_work + spent
            same += [
                float(np.mean(np.array(found[key]) == predicted))
                for _, _, found, _ in sweeps
                for key, predicted in alone.items()
            ]
    if min(same) < SAME_PREDICTIONS:
        raise SystemExit(f"only {min(same):.1%} of the predictions agree: not the same job")
    together_seconds, together_work, passes = (
        statistics.median(each[index] for each in sweeps) for index in (0, 1, 3)
    )
    trainings = len(candidates) * options.seeds
    print(f"{len(dataset):,} images at {options.size} px, {trainings} trainings, {options.epochs} epochs")
    print(f"equal results: {np.mean(same):.2%} of predictions agree, {min(same):.2%} in the worst training")
    print(f"one by one {alone_seconds:8.1f} s, {alone_work:8.1f} s of processor time")
    print(f"together   {together_seconds:8.1f} s, {together_work:8.1f} s of processor time (medians)")
    ratios = alone_seconds / together_seconds, alone_work / together_work
    worst, best = (alone_seconds / pick(each[0] for each in sweeps) for pick in (max, min))
    print(
        f"{ratios[0]:.1f} times faster ({worst:.1f} to {best:.1f}), "
        f"with {ratios[1]:.1f} times less processor time"
    )
    # Fine-tuned stages are trained in each training, with shared features or not: that bounds the ratio.
    print(f"together: {passes:.1f} s look at the images, {together_seconds - passes:.1f} s train")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    parser.add_argument("--backbones", nargs="*", default=None)
    parser.add_argument(
        "--architectures",
        nargs="*",
        default=["mobilenetv2_050", "mobilenetv2_100"],
        help="timm names that are given random weights, beside the built-in backbone",
    )
    parser.add_argument(
        "--depths", type=int, default=4, help="all, and so many less one with stages fine-tuned"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1, help="of the fine-tuned stages")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--limit", type=int, default=0, help="images; 0 for all")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--work", type=Path, help="a folder that keeps everything, to go on after a stop")
    return parser.parse_args()


def random_files(folder: Path, architectures: list[str]) -> list[str]:
    """Architectures with random weights, as local files."""
    import timm
    from safetensors.torch import save_file

    files = []
    for name in architectures:
        file = folder / f"{name}.safetensors"
        files.append(str(file))
        if file.exists():
            continue
        model = timm.create_model(name, pretrained=False)
        save_file(model.state_dict(), file, metadata={"architecture": name})
    return files


def spread(dataset, images: int):
    """The data set with so many images, taken evenly."""
    step = max(1, len(dataset) // images)
    return replace(dataset, samples=dataset.samples[::step][:images])


def sweep(dataset, candidates, *, options: argparse.Namespace, work: Path):
    """A comparison from an empty cache.

    Returns seconds, those of processors, predictions by candidate and seed, seconds of the passes.
    """
    from headstart.comparisons import compare

    forget_features()
    place = Path(tempfile.mkdtemp(dir=work)) / "comparison"
    started, worked = time.perf_counter(), time.process_time()
    found = compare(dataset, candidates, seeds=options.seeds, precision=options.precision, out=place)
    seconds, work_seconds = time.perf_counter() - started, time.process_time() - worked
    predictions = {}
    for candidate in candidates:
        trials = found.of(candidate)
        for seed in range(options.seeds):  # a training with nothing random in it counts for every seed
            predictions[key_of(candidate, seed)] = list(trials[min(seed, len(trials) - 1)].predicted)
    return seconds, work_seconds, predictions, sum(looked["seconds"] for looked in found.passes)


def key_of(candidate, seed: int) -> str:
    """Names a training in the results."""
    return f"{Path(candidate.backbone).stem} depth {candidate.depth} seed {seed}"


def one_by_one(dataset, candidates, *, options: argparse.Namespace, ledger: Ledger):
    """The same, each from an empty cache."""
    predictions, seconds, work = {}, 0.0, 0.0
    for candidate in candidates:
        for seed in range(options.seeds):
            key = key_of(candidate, seed)
            if key not in ledger:
                forget_features()
                started, worked = time.perf_counter(), time.process_time()
                found = single(dataset, candidate, seed=seed, precision=options.precision)
                spent = time.perf_counter() - started, time.process_time() - worked
                ledger.add(key, [*spent, found.tolist()])
                print(f"{ledger.position()} {key}: {ledger[key][0]:.1f} s", flush=True)
            predictions[key] = np.array(ledger[key][2])
            seconds, work = seconds + ledger[key][0], work + ledger[key][1]
    return seconds, work, predictions


def single(dataset, candidate, *, seed: int, precision: str):
    """One training as `fit` does it, up to the evaluation; the predicted classes of the validation images."""
    from headstart.backbones import load_backbone
    from headstart.backbones.runtimes import select
    from headstart.comparisons.passes import union
    from headstart.runs import FitConfig
    from headstart.training import predict_images, prepare, train

    runtime = select(precision=precision)
    common = FitConfig(data=dataset.name, runtime=runtime.name, precision=runtime.precision)
    config = candidate.config(common, seed=seed)
    network = load_backbone(candidate.backbone, size=candidate.size)
    wanted = union([candidate], views=candidate.views)
    prepared = prepare(dataset, network, spec=wanted, runtime=runtime, config=config)
    trained = train(prepared, config=config)
    found = {
        split: predict_images(prepared, trained, images=prepared.images(split))
        for split in ("validation", "test")
    }
    return found["validation"].argmax(axis=1)


def forget_features() -> None:
    """Empty the cache of features; graphs and compiled networks stay."""
    shutil.rmtree(Path(os.environ["HEADSTART_CACHE"]) / "features", ignore_errors=True)


if __name__ == "__main__":
    main()
