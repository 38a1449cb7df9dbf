"""Writes runs and comparisons where people already look at experiments: MLflow and TensorBoard."""

from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from headstart.comparisons import Comparison
from headstart.errors import MissingExtra, OptionError
from headstart.runs import Run

__all__ = ["TRACKERS", "Tracker", "tracker"]

TRACKERS = ("mlflow", "tensorboard")

_NEEDS = {"mlflow": ("mlflow", "sqlalchemy", "alembic", "pandas"), "tensorboard": ("tensorboardX",)}
_HOMES = {"mlflow": "headstart.tracking.mlflow_runs", "tensorboard": "headstart.tracking.tensorboard_events"}


class Tracker(Protocol):
    """Somewhere to write finished work."""

    def record(self, thing: Run | Comparison) -> str:
        """Write a run or a comparison; one line that says where to look."""
        ...


def tracker(name: str, *, register: str | None = None) -> Tracker:
    """The tracker of that name; to be asked for before the work, so that nothing is computed in vain.

    Args:
        name: "mlflow" (the server at ``MLFLOW_TRACKING_URI``, else ``./mlruns``) or "tensorboard" (event
            files in the run's own folder).
        register: a name in MLflow's model registry under which a run's model becomes the next version.

    Raises:
        OptionError: there is no such tracker, it has no registry, or MLflow's place cannot be used.
        MissingExtra: its package is not installed.
    """
    if name not in TRACKERS:
        raise OptionError(f"--track {name}: expected {' or '.join(TRACKERS)}")
    if register and name != "mlflow":
        raise OptionError(f"--register {register}: only mlflow has a registry; take --track mlflow")
    if any(find_spec(module) is None for module in _NEEDS[name]):
        raise MissingExtra(f"--track {name}", extra=name)
    found: Tracker = import_module(_HOMES[name]).open_tracker(**({"register": register} if register else {}))
    return found
