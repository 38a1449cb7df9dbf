"""Runs: what was trained or measured, how, with what result, and where it lies.

A run's folder is the truth (`run.json` inside it); the runs store is an index over all folders, in SQLite,
safe under concurrent writers, so that a run is found by its id from any directory.
"""

from headstart.runs.config import (
    DEFAULT_BACKBONE,
    HEADS,
    LAYERS,
    FitConfig,
    Method,
    refuse_others,
    todays_names,
)
from headstart.runs.folders import check_place, new_folder, sweep
from headstart.runs.images import (
    FOLDS_FILE,
    IMAGES_FILE,
    PREDICTIONS_FILE,
    SKIPPED_FILE,
    answer,
    fingerprint,
    read_images,
    read_label_errors,
    read_predictions,
    read_skipped,
    write_images,
    write_predictions,
)
from headstart.runs.index import Rebuilt, RunStore
from headstart.runs.record import (
    CLASSIFIER_FILE,
    RUN_FILE,
    Run,
    UnreadableRun,
    look_at,
    new_id,
    read_run,
    seconds_since,
    software,
    timestamp,
)

__all__ = [
    "CLASSIFIER_FILE",
    "DEFAULT_BACKBONE",
    "FOLDS_FILE",
    "HEADS",
    "IMAGES_FILE",
    "LAYERS",
    "PREDICTIONS_FILE",
    "RUN_FILE",
    "SKIPPED_FILE",
    "FitConfig",
    "Method",
    "Rebuilt",
    "Run",
    "RunStore",
    "UnreadableRun",
    "answer",
    "check_place",
    "fingerprint",
    "look_at",
    "new_folder",
    "new_id",
    "read_images",
    "read_label_errors",
    "read_predictions",
    "read_run",
    "read_skipped",
    "refuse_others",
    "seconds_since",
    "software",
    "sweep",
    "timestamp",
    "todays_names",
    "write_images",
    "write_predictions",
]
