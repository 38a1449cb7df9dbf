"""What the lesson claims is what its experiments show, each at its smallest size.

The claims are those of `benchmarks/claims.py`, which asks them of every seed at normal size.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headstart.lesson import experiments
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.experiments import data, declarations

pytestmark = pytest.mark.usefixtures("one_thread")

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")

QUICK = "five-images-one-epoch"

ON_DRAWINGS = ("model-choice", "batchnorm", "taps", "calibration", "wrong-preparation", "copies")
"""Experiments whose claims about accuracies hold on drawings too."""

OWN_IMAGES = {"freeze-depth": data.TURNED}
"""Experiments that bring other images than digits."""


@pytest.fixture(scope="module")
def claims() -> Iterator[ModuleType]:
    sys.path.insert(0, BENCHMARKS)
    import claims

    yield claims
    sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        *((name, OWN_IMAGES.get(name, data.DIGITS)) for name in experiments.registry()),
        *((name, data.DRAWINGS) for name in ON_DRAWINGS),
    ],
)
def test_every_claim_holds_at_the_smallest_size(
    name: str, source: str, claims: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == data.DRAWINGS:
        monkeypatch.setattr(data, "find_spec", lambda name: None)
        monkeypatch.setattr("headstart.lesson.experiments.frozen.find_spec", lambda name: None)  # Keras, too
    told: list[tuple[Any, ...]] = []
    result = experiments.run(name, size="small", progress=lambda *at: told.append(at))
    said = [claim for claim in claims.CLAIMS if claim.experiment == name]
    assert said and any(claim.small for claim in said)
    for claim in said:
        assert not claim.small or claim.holds(result.fields, result.table.rows), claim.says
    assert str(result.fields["conclusion"]) and not str(result.fields["conclusion"]).endswith(".")
    assert result.data in (source, "random pixels") and not result.own_data
    packs = [pack for each in library.available() if name in (pack := library.load_pack(each)).experiments]
    assert packs and all(set(result.fields) == set(pack.experiments[name].fields) for pack in packs)
    assert told and all(0 <= done <= total for _, done, total, *_ in told)
    assert result.plots and all(series.points for plot in result.plots for series in plot.series)
    assert all(len(row) == len(result.table.columns) for row in result.table.rows)
    assert not result.varied and result.machine["cores"] and result.versions["headstart"]
    assert result.processor_seconds > 0 and result.seconds > 0
    assert experiments.latest(name) == result, "stored, and read back the same"
    assert experiments.results() == {name: result.fields}


def test_every_claim_is_of_an_experiment_and_every_experiment_has_one(claims: ModuleType) -> None:
    assert {claim.experiment for claim in claims.CLAIMS} == set(experiments.registry())
    assert len({claim.says for claim in claims.CLAIMS}) == len(claims.CLAIMS)


@pytest.mark.parametrize("slug", library.available())
def test_every_task_names_values_that_solve_it_and_that_its_controls_accept(slug: str) -> None:
    pack = library.load_pack(slug)
    for task in (*pack.tasks, pack.project):
        assert task is not None and task.solved_with, task
        declared = declarations.declaration(task.experiment)
        assert set(task.solved_with) == {control.name for control in task.controls}
        assert declared.read(task.solved_with, size="normal")


def test_the_challenges_program_runs_two_hundred_times() -> None:
    assert declarations.declaration(QUICK).values("normal")["runs"] == 200
