"""A fit, its check, predictions, a deeper fit, a report and exports on made-up images: does it all work?

`python .ci/smoke.py`, with whatever versions of the dependencies there are (make test-floors).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image


def headstart(*words: object) -> str:
    """What a command prints; its errors and a failure are this program's."""
    command = [sys.executable, "-m", "headstart", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Every step in a new folder, each a process of its own."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        photos, run, deep = (Path(name) / part for part in ("photos", "run", "deep"))
        # What old versions take is no timing of this machine, and these runs are nobody's.
        os.environ |= {"HEADSTART_HOME": f"{name}/home", "HEADSTART_CACHE": f"{name}/cache"}
        for kind, colour in (("reds", (200, 40, 40)), ("blues", (40, 40, 200))):
            (photos / kind).mkdir(parents=True)
            for number in range(12):
                pixels = np.clip(random.normal(colour, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(photos / kind / f"{number:02}.png")
        headstart("check", photos)
        headstart("fit", photos, "--size", 64, "--out", run)
        answers = json.loads(headstart("predict", run, photos / "reds" / "00.png", "--json"))
        assert "reds" in json.dumps(answers), answers
        headstart("fit", photos, "--size", 64, "--freeze", 7, "--epochs", 1, "--out", deep)
        headstart("report", run)
        for form in ("onnx", "openvino", "torchscript", "safetensors"):
            exported = json.loads(headstart("export", run, "--to", form, "--json"))
            assert exported["parity"]["changed"] == 0, exported
    print("fit, check, predict, report and export do")


if __name__ == "__main__":
    main()
