"""Experiments: what backs a lesson's claims, run on the learner's own machine.

    from headstart.lesson import experiments

    experiments.registry()                          the names
    experiments.describe("one-pass")                parameters, predicted seconds, bound
    result = experiments.run("one-pass")            runs it, stores and returns the result
    experiments.results()                           what the lesson's prose quotes

Each is a function of Headstart's API declared in `declarations`; none comes from a pack. Listing, describing
and reading results start at once; PyTorch is imported by what trains. Until one has run there is nothing to
show.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import InternalError, MissingExtra, OptionError
from headstart.lesson.engine.results import ExperimentResult, Outcome
from headstart.lesson.experiments.declarations import (
    BOUND,
    DECLARED,
    SIZES,
    Declaration,
    Parameter,
    Told,
    declaration,
)
from headstart.lesson.experiments.store import ResultStore
from headstart.web.plots import Plot, Series, Table, Value

if TYPE_CHECKING:
    from headstart.lesson.experiments.context import Seconds, Work
    from headstart.lesson.experiments.durations import Foreseen

__all__ = [
    "BOUND",
    "SIZES",
    "Description",
    "ExperimentResult",
    "Parameter",
    "Plot",
    "ResultStore",
    "Series",
    "Table",
    "describe",
    "find",
    "latest",
    "registry",
    "results",
    "run",
]


@dataclass(frozen=True)
class Description:
    """What may be said of an experiment before it runs.

    Attributes:
        name: The experiment's.
        shows: What one will see.
        parameters: What can be set.
        predicted_seconds: What it will take, the median.
        predicted_range: Seconds that nine in ten runs should lie between.
        predicted_from: "planned" where it never ran here at this size, else "remembered from runs here".
        bound: Seconds after which it is ended without a result.
        own_images: Whether it can run on the learner's own folder.
        missing: The extra to install before it can run, or empty.
    """

    name: str
    shows: str
    parameters: tuple[Parameter, ...]
    predicted_seconds: float
    predicted_range: tuple[float, float]
    predicted_from: str
    bound: float
    own_images: bool
    missing: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def registry() -> tuple[str, ...]:
    """The names of the experiments."""
    return tuple(DECLARED)


def describe(name: str, *, size: str = "normal", parameters: Mapping[str, Any] | None = None) -> Description:
    """What may be said of an experiment before it runs.

    Args:
        name: one of `registry`.
        size: "normal" or "small".
        parameters: those that shall differ from what is declared; the prediction is for these.

    Raises:
        OptionError: no such experiment, size, parameter or value.
    """
    from headstart.lesson.experiments.durations import foresee

    declared = declaration(name)
    foreseen = foresee(declared, declared.read(parameters, size=size), size=size)
    return Description(
        name=name,
        shows=declared.shows,
        parameters=declared.parameters,
        predicted_seconds=round(foreseen.seconds.median, 2),
        predicted_range=(round(foreseen.seconds.low, 2), round(foreseen.seconds.high, 2)),
        predicted_from=foreseen.source,
        bound=BOUND,
        own_images=declared.images,
        missing=_missing(declared),
    )


def run(
    name: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    source: Any = None,
    size: str = "normal",
    seed: int = 0,
    progress: Told | None = None,
) -> ExperimentResult:
    """Run an experiment, store its result and return it.

    Args:
        name: one of `registry`.
        parameters: those that shall differ from what is declared.
        source: the learner's own labelled images, as `fit` takes them; None for digits or drawings.
        size: "normal", or "small" for one of a few seconds.
        seed: Random seed.
        progress: called with (phase, done, total); what it raises ends the experiment, and nothing is stored.

    Raises:
        OptionError: an unknown name, parameter or value.
        MissingExtra: it needs PyTorch, which is not installed.
        UserError: the learner's images cannot be used.
    """
    from headstart.lesson.experiments.context import Stopwatch, Work, is_busy
    from headstart.lesson.experiments.durations import foresee, remember

    declared = declaration(name)
    values = declared.read(parameters, size=size)
    if source is not None and not declared.images:
        raise OptionError(f"experiment {name} uses random pixels and no images; leave the folder out")
    if _missing(declared):
        raise MissingExtra(f"experiment {name}", extra=declared.needs)
    foreseen = foresee(declared, values, size=size)
    watch = Stopwatch()
    module, function = declared.function.split(":")
    experiment = getattr(import_module(f"{__name__}.{module}"), function)
    with (
        tempfile.TemporaryDirectory(prefix="headstart-", ignore_cleanup_errors=True) as folder,
        closing(Work(values, source, seed, Path(folder), BOUND, progress)) as work,
        _on_one_core(),
    ):
        outcome: Outcome = experiment(work)
    if not outcome.fields:
        raise InternalError(f"experiment {name} gave no fields")
    seconds = watch.seconds()
    if is_busy(seconds):
        work.notes.append(
            f"the machine was busy with other work: of {seconds.clock:.1f} s on the clock "
            f"{seconds.processor:.1f} s were computed here; what is compared are processor seconds, which "
            "other work hardly changes"
        )
    result = _result(work, outcome, declared=declared, size=size, seconds=seconds, foreseen=foreseen)
    ResultStore().add(result)
    if source is None:  # the learner's own images may be of any number and size
        quiet = seconds.processor if result.busy else seconds.clock
        remember(declared, values, size=size, seconds=quiet)
    return result


def _result(
    work: Work, outcome: Outcome, *, declared: Declaration, size: str, seconds: Seconds, foreseen: Foreseen
) -> ExperimentResult:
    """What is stored of an experiment that has run."""
    from headstart.lesson.experiments.context import is_busy
    from headstart.runs import new_id, timestamp

    plain = declared.values(size)
    return ExperimentResult(
        id=new_id(declared.name),
        name=declared.name,
        size=size,
        parameters=dict(work.parameters),
        varied=tuple(name for name, value in work.parameters.items() if value != plain[name]),
        fields=dict(outcome.fields),
        plots=outcome.plots,
        table=outcome.table,
        notes=tuple(work.notes),
        data=work.data,
        own_data=work.source is not None,
        machine=machine(),
        versions=_versions(),
        seed=work.seed,
        seconds=round(seconds.clock, 2),
        processor_seconds=round(seconds.processor, 2),
        busy=is_busy(seconds),
        predicted_seconds=round(foreseen.seconds.median, 2),
        predicted=foreseen.seconds.to_dict() | {"source": foreseen.source},
        created=timestamp(),
    )


@contextmanager
def _on_one_core() -> Iterator[None]:
    """PyTorch on one core, where it is used: two that wait for each other make time of their own.

    Beside other work a wait may be as long as a scheduler's turn, and a core that waits in a loop computes
    nothing and is charged for it.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def latest(name: str, *, as_declared: bool = False) -> ExperimentResult | None:
    """The newest stored result of an experiment on this machine, or None while it has not run.

    Args:
        name: the experiment's.
        as_declared: only where no parameter was varied, and a run at normal size before any small one:
            what the lesson quotes.

    Raises:
        OptionError: no such experiment.
    """
    store = ResultStore()
    declared = declaration(name).name
    whole = store.latest(declared, size="normal", as_declared=True) if as_declared else None
    return whole or store.latest(declared, as_declared=as_declared)


def find(identity: str) -> ExperimentResult | None:
    """A stored result by its id, or None where it is not here."""
    return ResultStore().find(identity)


def results() -> dict[str, dict[str, object]]:
    """What `placeholders.fill` and `terminal.play` want: per experiment that has run, its fields.

    Prose says what happens where everything is as declared, so results of varied parameters are left aside,
    and a run at normal size counts before a small one, however new.
    """
    quoted = {name: latest(name, as_declared=True) for name in DECLARED}
    return {name: dict(result.fields) for name, result in quoted.items() if result is not None}


def _missing(declared: Declaration) -> str:
    from headstart.backbones.building import has_timm

    return declared.needs if declared.needs == "torch" and not has_timm() else ""


def machine() -> dict[str, Value]:
    """What the experiment ran on: processor, cores that this process may use, memory, system."""
    from headstart.heads.threads import cores

    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gigabytes": memory,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    from headstart import __version__

    found = {"headstart": __version__, "python": platform.python_version()}
    for name in ("numpy", "openvino", "torch", "timm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
