"""Runs: what was trained or measured, how, with what result, and where it lies.

A run's folder is the truth (`run.json` inside it); the runs store is an index over all folders, in SQLite,
safe under concurrent writers, so that a run is found by its id from any directory.
"""

import hashlib
import heapq
import json
import os
import secrets
import shlex
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.errors import RunError
from headstart.files import flush, flush_tree
from headstart.places import home_folder, make

RUN_FILE = "run.json"
PREDICTIONS_FILE = "predictions.json"
IMAGES_FILE = "images.json"
SKIPPED_FILE = "skipped.json"
CLASSIFIER_FILE = "classifier.json"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result, so that it can be repeated."""

    data: str  # where the labelled images came from
    backbone: str  # name or path, as asked for
    size: int  # pixels a side that the backbone sees
    depth: int  # frozen stages, counted from the input
    stages: int  # how many the backbone has; depth == stages means "all"; 0 where nobody knows
    head: str  # "ridge" or "softmax"
    taps: tuple[str, ...] | None  # what the head reads; None is the last vector alone
    views: tuple[str, ...]  # renderings of each training image
    pretrained: bool  # False for `--scratch`
    architecture: str | None  # for weights files that do not say
    runtime: str  # "openvino" or "torch"
    precision: str  # "bf16" or "f32"
    epochs: int | None  # of the softmax head or the tail; None for ridge alone
    batch_size: int
    learning_rate: float | None  # None: the default of what is trained
    class_weights: str | None  # "balanced" or None
    validation: float  # share of each class held out to choose on, where the data does not say
    test: float  # share of each class read once, at the end
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunConfig":
        """The inverse of `to_dict`; unknown keys of later versions are left aside."""
        known = {key: value for key, value in data.items() if key in {f.name for f in fields(cls)}}
        taps = known["taps"]
        return cls(**{**known, "taps": tuple(taps) if taps else None, "views": tuple(known["views"])})


@dataclass(frozen=True)
class Run:
    """One training: its config, history, evaluation and cost. Seconds are wall-clock.

    Where ``trained`` is False it is an evaluation alone, of a classifier that was trained elsewhere: all its
    images are test images, it has no history and nothing was predicted.

    ``evaluation`` maps a split's name to `metrics.Evaluation.to_dict()`; ``accuracy`` to the share that is
    right, None where a split is empty.
    """

    id: str
    path: Path
    created: str
    config: RunConfig
    classes: tuple[str, ...]
    images: Mapping[str, int]
    accuracy: Mapping[str, float | None]
    macro_f1: float | None
    evaluation: Mapping[str, Any]
    seconds: Mapping[str, float]
    cache: Mapping[str, int]
    history: tuple[Mapping[str, Any], ...] = ()
    head_fit: Mapping[str, Any] = field(
        default_factory=dict
    )  # penalty, leave-one-out accuracy, choice of taps
    data: Mapping[str, Any] = field(default_factory=dict)  # the DataReport
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    predicted_seconds: Mapping[str, float] = field(
        default_factory=dict
    )  # low, median, high of the whole command, set before the work; empty in runs of earlier versions
    predicted_phases: Mapping[str, float] = field(default_factory=dict)  # of the median, what was to come
    trained: bool = True
    source: str | None = None  # folder, table or zip of the images; None for arrays and in earlier versions
    corrections: str | None = None  # file of the labels that lay over the images' own
    whole: bool = (
        True  # False: less was done than predicted, as time ran out or a killed training was resumed
    )
    machine: str = ""  # which one trained it, in hex digits; empty in runs of earlier versions

    def to_dict(self) -> dict[str, Any]:
        """What `headstart fit --json` prints and `run.json` holds."""
        known = "all" if self.config.depth == self.config.stages else self.config.depth
        depth = known if self.config.stages else None
        summary = {
            "run": self.id,
            "path": str(self.path),
            "backbone": self.config.backbone,
            "depth": depth,
            "head": self.config.head,
        }
        return (
            summary
            | {f.name: getattr(self, f.name) for f in fields(self)}
            | {
                "path": str(self.path),
                "config": self.config.to_dict(),
            }
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, path: Path) -> "Run":
        """The inverse of `to_dict`; ``path`` is where the folder lies now."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return cls(
            **{
                **known,
                "path": path,
                "config": RunConfig.from_dict(data["config"]),
                "classes": tuple(data["classes"]),
                "history": tuple(data.get("history", ())),
                "notes": tuple(data.get("notes", ())),
            }
        )


def new_id(backbone: str) -> str:
    """An id that sorts by time, says what it is, and is unique."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{Path(backbone).stem[:24]}-{secrets.token_hex(2)}"


def timestamp() -> str:
    """Now, in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_place(path: Path) -> None:
    """Refuse a folder that a run cannot be saved in: asked before the work, or the work would be lost.

    Raises:
        RunError: the place is taken or cannot be written.
    """
    if path.exists():
        raise RunError(f"{path} is there already; name another folder with --out, or remove it")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RunError(f"{path}: {parent} cannot be written; name another folder with --out")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at ``path`` complete or not at all.

    What a killed process left half written beside it is removed first (see `sweep`).

    Raises:
        RunError: the place is taken or cannot be written.
    """
    check_place(path)
    sweep(path.parent)
    partial = path.with_name(f".{path.name}.{_host()}.{os.getpid()}{_PARTIAL}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; name a folder that can be written with --out") from error
    try:
        with _locked(partial):
            yield partial
            flush_tree(partial)
            partial.rename(path)
            flush(path.parent)
    except BaseException as error:
        import shutil

        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(
                f"{path}: {error.strerror}; make room or name another folder with --out"
            ) from error
        raise


_PARTIAL = ".partial"
"""A folder that is being written is hidden and called ``.NAME.HOST.PROCESS.partial``."""

_STARTING = 60.0
"""Seconds without a change after which a process of that number is another one, given the number later."""

_STALE = 86400.0
"""Seconds without a change after which a folder is given up whose writer cannot be asked after from here."""


def sweep(folder: Path) -> list[Path]:
    """Remove the half-written folders in ``folder`` that processes left which were killed.

    A folder's writer holds a lock on it, which the system gives back when the process ends. Where that
    cannot be asked (another machine's process, a disk without locks), a day without a change decides.

    Returns:
        What was removed; nothing that cannot be read or removed is an error.
    """
    import shutil

    removed = []
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if _is_partial(entry)]
    except OSError:
        return []
    for partial in found:
        try:
            if _abandoned(partial):
                shutil.rmtree(partial)
                removed.append(partial)
        except OSError:
            continue
    return removed


def _is_partial(entry: "os.DirEntry[str]") -> bool:
    parts = entry.name.removesuffix(_PARTIAL).rsplit(".", 2)
    named = entry.name.startswith(".") and entry.name.endswith(_PARTIAL) and len(parts) == 3
    return named and parts[2].isdecimal() and entry.is_dir(follow_symlinks=False)


def _abandoned(partial: Path) -> bool:
    """Whether nobody is writing this folder any more; in doubt somebody is."""
    _, host, process = partial.name.removesuffix(_PARTIAL).rsplit(".", 2)
    idle = time.time() - max(each.stat().st_mtime for each in (partial, *partial.iterdir()))
    free = _lock_is_free(partial) if host == _host() else None
    if free is None:
        return idle > _STALE
    return free and (not _is_running(int(process)) or idle > _STARTING)


def _host() -> str:
    """This machine's name, as a part of a file's name that has no dot."""
    import platform

    return "".join(each if each.isalnum() else "-" for each in platform.node())[:24] or "host"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, where the system and the disk know such locks."""
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_is_free(folder: Path) -> bool | None:
    """Whether no process holds the folder's lock; None where there are no such locks."""
    if os.name != "posix":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that no process has
        return True
    return True


def read_run(folder: Path) -> Run:
    """The run that lies in ``folder``.

    Raises:
        RunError: the folder has no readable `run.json`.
    """
    file = folder / RUN_FILE
    try:
        return Run.from_dict(json.loads(file.read_text(encoding="utf-8")), path=folder)
    except FileNotFoundError:
        if (folder / CLASSIFIER_FILE).exists():
            raise RunError(
                f"{folder} has a classifier and no record of a run; to have one, measure it on labelled "
                f"images: headstart evaluate {shlex.quote(str(folder))} DATA --record"
            ) from None
        raise RunError(f"{folder} is no run: it has no {RUN_FILE}; headstart runs lists the runs") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error!r}); fit again or restore the folder") from error


def read_predictions(folder: Path) -> dict[str, Any]:
    """What the run in ``folder`` said of each held-out image.

    Returns:
        ``split``: the fingerprint of the split, hex; ``images``: one entry per validation and test image with
        ``path``, ``content`` (hash, hex), ``split``, ``label``, ``predicted``, ``probability``, ``top`` and,
        where the image lies in a file, ``file`` (and ``member`` of a zip).

    Raises:
        RunError: the file is missing or damaged.
    """
    file = folder / PREDICTIONS_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {"split": str(found["split"]), "images": list(found["images"])}
    except FileNotFoundError:
        raise RunError(f"{folder} has no {PREDICTIONS_FILE}; fit again to have one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged ({error!r}); fit again or restore the folder") from error


_TOP = 3
"""Labels kept for each image: the one called, and the two that it was nearly called."""


def answer(probabilities: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
    """What was said of an image, as `predictions.json` has it beside what `dataset.describe` says."""
    best = heapq.nlargest(_TOP, range(len(classes)), key=probabilities.__getitem__)
    top = [[classes[i], round(probabilities[i], 5)] for i in best]
    return {"predicted": top[0][0], "probability": top[0][1], "top": top}


def write_predictions(folder: Path, images: Sequence[Mapping[str, Any]], *, split: str) -> None:
    """Write what `read_predictions` reads.

    In ASCII, like all of these files (`json.dumps` escapes the rest): the name of a file that is no UTF-8
    must come back as it was, and a folder reads the same under every locale.
    """
    (folder / PREDICTIONS_FILE).write_text(json.dumps({"split": split, "images": images}))


def write_images(
    folder: Path, images: Sequence[Mapping[str, Any]], *, skipped: Iterable[tuple[str, str]]
) -> None:
    """What a report or a person may want later: every image, its side and its place; the files left out.

    Args:
        folder: of the run.
        images: each as `dataset.describe` says it.
        skipped: name and reason of each file that was left out.
    """
    (folder / IMAGES_FILE).write_text(json.dumps(with_stamps(images)))
    left_out = [{"path": name, "reason": reason} for name, reason in skipped]
    (folder / SKIPPED_FILE).write_text(json.dumps(left_out, indent=1))


def with_stamps(images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same with the size and the time of change of each one's file, by which a change is noticed."""
    stamps: dict[str, dict[str, int]] = {}
    for image in images:
        file = str(image.get("file", ""))
        if file and file not in stamps:
            try:
                found = os.stat(file)
                stamps[file] = {"size": found.st_size, "modified": found.st_mtime_ns}
            except OSError:
                stamps[file] = {}
    return [{**image, **stamps.get(str(image.get("file", "")), {})} for image in images]


def fingerprint(images: Iterable[tuple[bytes | None, str | None, str]]) -> str:
    """Hex digits that change with any image's content, side or label: results on it can be compared.

    Args:
        images: content hash (None where it could not be read), side and label of each.
    """
    lines = [f"{content.hex()} {split} {label}" for content, split, label in images if content is not None]
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=12).hexdigest()


def software() -> dict[str, str]:
    """The versions of what decides a run's numbers."""
    import platform
    from importlib.metadata import version

    return {
        "headstart": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "openvino", "pillow")},
    }


class RunStore:
    """The index of all runs, in ``home/runs.sqlite``."""

    def __init__(self, home: Path | None = None) -> None:
        self.path = (home or home_folder()) / "runs.sqlite"

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            make(self.path.parent)
            connection = sqlite3.connect(self.path, timeout=30.0)
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"runs store {self.path}: {error}; set HEADSTART_HOME to a folder of yours"
            ) from error
        try:
            with connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, path TEXT NOT NULL, "
                    "created TEXT NOT NULL, body TEXT NOT NULL)"
                )
                yield connection
        except sqlite3.DatabaseError as error:
            raise RunError(
                f"runs store {self.path}: {error}; move the file away, runs keep their folders"
            ) from error
        finally:
            connection.close()

    def add(self, run: Run) -> None:
        """Enter a run; entering it again replaces the entry."""
        body = json.dumps(run.to_dict(), default=str)
        with self._connection() as connection:
            entry = (run.id, os.fsencode(run.path), run.created, body)  # a path need not be text
            connection.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", entry)

    def select(self, *, contains: str = "", limit: int | None = None) -> list[Run]:
        """Runs, the newest first; ``contains`` must be somewhere in a run's record."""
        if not self.path.exists():
            return []
        query = "SELECT path, body FROM runs WHERE body LIKE ? ESCAPE '!' ORDER BY created DESC, id DESC"
        if limit is not None:
            query += f" LIMIT {limit:d}"
        sought = json.dumps(contains)[1:-1]  # as the record writes it
        for special in "!%_":  # those of LIKE stand for themselves
            sought = sought.replace(special, f"!{special}")
        with self._connection() as connection:
            rows = connection.execute(query, (f"%{sought}%",)).fetchall()
        return [Run.from_dict(json.loads(body), path=Path(os.fsdecode(path))) for path, body in rows]

    def find(self, name: str | Path) -> Run:
        """A run by its folder, its id, or the beginning of an id that is unique.

        Raises:
            RunError: there is none, several begin so, or its folder is gone.
        """
        folder = Path(name)
        if folder.is_dir():
            return read_run(folder)
        matches = [run for run in self.select() if run.id.startswith(str(name))]
        exact = [run for run in matches if run.id == str(name)]
        if len(exact or matches) > 1:
            raise RunError(f"{name} begins {len(matches)} runs; give more of the id (headstart runs)")
        if not matches:
            raise RunError(f"no run {name}: neither a folder nor an id; headstart runs lists the runs")
        run = (exact or matches)[0]
        if not run.path.exists():
            raise RunError(f"run {run.id} was in {run.path}, which is gone; fit again or give its new folder")
        return read_run(run.path)


def seconds_since(start: float) -> float:
    """Wall-clock seconds since ``start`` (of `time.perf_counter`), to the millisecond."""
    return round(time.perf_counter() - start, 3)
