"""Puts one label right in the studio and trains again: how long from the click to the answered page?

    python benchmarks/studio.py FOLDER [--images 1000] [--repeats 5]

Trains once on images of the folder, with everything frozen. Then each repeat corrects the label of one of the
most confident mistakes over HTTP, as the page's form does, and takes the correction back. It asserts that the
correction is in the new run before it prints the seconds: of the whole request (retraining, saving, answering
the new run's page), and those that the page shows.
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

from starlette.testclient import TestClient

from headstart.runs import read_predictions
from headstart.studio.app import create_studio
from headstart.studio.datasets import Collections
from headstart.studio.state import Studio
from headstart.training import fit
from headstart.web.jobs import Jobs


def choose_images(folder: Path, target: Path, *, images: int) -> None:
    """Link as many images, evenly over the classes."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    each = -(-images // len(classes))
    for kind in classes:
        (target / kind.name).mkdir(parents=True)
        for file in sorted(kind.iterdir())[:each]:
            (target / kind.name / file.name).symlink_to(file.resolve())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        os.environ["HEADSTART_HOME"], os.environ["HEADSTART_CACHE"] = str(work / "home"), str(work / "cache")
        source = options.folder.resolve()
        os.chdir(work)
        choose_images(source, work / "photos", images=options.images)
        measure(work, repeats=options.repeats)


def measure(work: Path, *, repeats: int) -> None:
    _, run = fit(work / "photos", backbone="builtin")
    home = work / "home"
    studio = Studio(
        home=home,
        root=work,
        folder=work,
        secret=b"s" * 32,
        collections=Collections(home / "studio" / "data"),
        work=Jobs(home),
        looks=Jobs(home, "looks"),
        learner="benchmark",
    )
    browser = TestClient(create_studio(studio), base_url="http://127.0.0.1")
    token = re.search(r'name="csrf" value="(\w+)"', browser.get("/").text)
    assert token
    whole, shown = [], []
    for _ in range(repeats):
        images = read_predictions(run.path)["images"]
        wrong = next(each for each in images if each["label"] != each["predicted"])
        form = {"csrf": token[1], "content": wrong["content"], "label": wrong["predicted"]}
        begun = time.perf_counter()
        answer = browser.post(f"/runs/{run.id}/correct", data=form)
        whole.append(time.perf_counter() - begun)
        new = studio.run(answer.url.path.rsplit("/", 1)[1])
        entry = next(e for e in read_predictions(new.path)["images"] if e["content"] == wrong["content"])
        assert entry["label"] == wrong["predicted"], "the correction is not in the new run"
        said = re.search(r"Retrained in <b>([\d.]+) s", answer.text)
        assert said, "the page does not say how long it took"
        shown.append(float(said[1]))
        browser.post(f"/runs/{new.id}/undo", data={"csrf": token[1]})
    total = sum(run.images.values())
    print(f"{total} images, {len(run.classes)} classes, {repeats} corrections, features in the cache")
    print(f"click to answered page: median {statistics.median(whole):.2f} s, slowest {max(whole):.2f} s")
    print(f"shown on the page:      median {statistics.median(shown):.2f} s, slowest {max(shown):.2f} s")


if __name__ == "__main__":
    main()
