"""The core of the Keras room on every backend of Keras that is installed, each in a process of its own.

The other tests of the room run on one backend: the one that ``KERAS_BACKEND`` names, else TensorFlow. All of
them on all backends: ``make test-keras-backends``.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="needs headstart[keras]")

CORE = (
    "test_keras.py::test_losses_and_metrics_equal_those_of_model_fit",
    "test_keras.py::test_fine_tuned_layers_behind_the_cut_train_as_in_model_fit",
    "test_keras.py::test_several_inputs_outputs_and_tensors_and_a_shared_base",
    "test_keras_data.py::test_callbacks_see_the_users_model_and_act_on_it",
    "test_keras_data.py::test_a_py_dataset_is_read_in_its_own_order",
    "test_keras_data.py::test_a_generator_is_read_in_its_own_order",
)
LOADER = "test_keras_data.py::test_a_torch_loader_is_read_in_its_own_order"


@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_the_core_holds_on_every_backend(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if backend == os.environ.get("KERAS_BACKEND", "tensorflow"):
        pytest.skip(f"the other tests run on {backend} now")
    tests = Path(__file__).parent
    chosen = [*CORE, LOADER] if importlib.util.find_spec("torch") else CORE
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *(str(tests / name) for name in chosen)],
        cwd=tests.parent,
        env=environment | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{len(chosen)} passed" in done.stdout


def test_pytorchs_networks_can_be_used_after_tensorflow_has_come_with_the_room() -> None:
    for name in ("tensorflow", "triton", "timm"):
        pytest.importorskip(name, reason="TensorFlow and a build of PyTorch with Triton do not get along")
    program = "import tensorflow, headstart.keras, timm; timm.create_model('mobilenetv2_050'); print('alive')"
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "alive", done.stderr[-2000:]


def test_the_room_leaves_triton_importable_by_importing_it_first(tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("import sys\nfirst = 'tensorflow' not in sys.modules\n")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    program = "import headstart.keras, tensorflow, triton; print(triton.first)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "True", done.stderr[-2000:]
