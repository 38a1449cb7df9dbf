"""Headstart: image classifiers from pre-trained vision models; every frozen layer runs once per image.

Names are resolved on first use, so that importing the package costs nothing.
"""

TYPE_CHECKING = False  # as `typing` has it, without the milliseconds that importing it takes
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "fit": "headstart.training",
    "compare": "headstart.comparisons",
    "evaluate": "headstart.training.evaluation",
    "record_evaluation": "headstart.training.evaluation",
    "export": "headstart.exports",
    "load": "headstart.classifier",
    "Callback": "headstart.runs.callbacks",
    "Classifier": "headstart.classifier",
    "FitConfig": "headstart.runs",
    "Run": "headstart.runs",
    "embed": "headstart.features.embedding",
    "read_dataset": "headstart.data.dataset",
    "load_backbone": "headstart.backbones",
    "plot_confusion": "headstart.reports.figures",
    "report": "headstart.reports",
    "show_batch": "headstart.reports.figures",
    "show_mistakes": "headstart.reports.figures",
}

__all__ = [
    "Callback",
    "Classifier",
    "FitConfig",
    "Run",
    "__version__",
    "compare",
    "embed",
    "evaluate",
    "export",
    "fit",
    "load",
    "load_backbone",
    "plot_confusion",
    "read_dataset",
    "record_evaluation",
    "report",
    "show_batch",
    "show_mistakes",
]


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
