"""What operators copy: the files of `deploy/` agree with the commands and the paths that exist."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.cli import fit, serve

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def _dockerfile() -> list[tuple[str, str]]:
    """Each instruction and its argument."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """What `headstart serve` makes of them, an existing file for the token; an unknown option is an error."""
    token = arguments.index("--token-file") + 1
    there = [*arguments[:token], str(DEPLOY / "Dockerfile"), *arguments[token + 1 :]]
    return dict(serve.command.make_context("serve", there).params) | {"token_file": arguments[token]}


def test_the_image_copies_what_is_there_and_starts_a_command_that_exists() -> None:
    found = _dockerfile()
    for instruction, argument in found:
        if instruction == "COPY" and not argument.startswith("--from"):
            assert all((ROOT / each).exists() for each in argument.split()[:-1]), argument
    last = {name: argument for name, argument in found if name in ("USER", "ENTRYPOINT", "CMD", "EXPOSE")}
    assert json.loads(last["ENTRYPOINT"]) == ["headstart", "serve"] and last["USER"] == "10001"
    told = _parsed(json.loads(last["CMD"]))
    assert told["host"] == "0.0.0.0" and str(told["port"]) == last["EXPOSE"] and told["token_file"]


def test_the_compose_file_starts_the_image_closed() -> None:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    classifier = found["services"]["classifier"]
    assert _parsed(classifier["command"])["token_file"] == "/run/secrets/token"
    assert classifier["read_only"] and classifier["cap_drop"] == ["ALL"] and "ports" not in classifier
    assert (DEPLOY / classifier["build"]["context"] / classifier["build"]["dockerfile"]).is_file()


def test_the_unit_starts_a_command_that_exists() -> None:
    unit = (DEPLOY / "headstart-serve.service").read_text()
    started = re.search(r"^ExecStart=(\S+) serve (.*)$", unit, re.MULTILINE)
    assert started and _parsed(shlex.split(started[2]))["token_file"] == "%d/token"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "headstart-serve.service").read_text()
    there = tmp_path / "headstart-serve.service"
    there.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit))
    done = subprocess.run(["systemd-analyze", "verify", there], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "headstart-serve" not in done.stderr, done.stderr


def test_the_job_on_a_ray_cluster_is_a_command_that_exists_and_every_node_sees_the_shared_folder() -> None:
    found = yaml.safe_load((DEPLOY / "ray-job.yaml").read_text())["spec"]
    command, name, *arguments = shlex.split(found["entrypoint"])
    assert (command, name) == ("headstart", "fit")
    told = fit.command.make_context("fit", arguments).params
    assert told["on"] == "ray" and told["images"].startswith("/shared/")
    image = (DEPLOY / "ray.Dockerfile").read_text()
    assert f"FROM rayproject/ray:{found['rayClusterSpec']['rayVersion']}-" in image
    assert f"\nray=={found['rayClusterSpec']['rayVersion']} " in (ROOT / "locks/dev.txt").read_text()
    assert "HEADSTART_CACHE=/shared/" in image and "HEADSTART_HOME=/shared/" in image
    groups = [found["rayClusterSpec"]["headGroupSpec"], *found["rayClusterSpec"]["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        claimed = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"]}
        mounts = {each["mountPath"]: claimed[each["name"]] for each in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"/shared": "headstart-shared"}
