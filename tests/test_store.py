"""The one store: timings are kept for each machine, and cost nothing where they cannot be kept."""

from pathlib import Path

from headstart.store import Timing, add_timings, database_file, read_timings


def test_the_newest_timings_of_a_machine_come_first(tmp_path: Path) -> None:
    assert read_timings("desk") == []
    add_timings("desk", [Timing("extraction", "a", 1.5)])
    add_timings("desk", [Timing("head", "", 0.5), Timing("head", "", 0.75)])
    add_timings("laptop", [Timing("extraction", "a", 9.0)])
    assert read_timings("desk", newest=2) == [Timing("head", "", 0.75), Timing("head", "", 0.5)]
    assert len(read_timings("desk")) == 3 and read_timings("elsewhere") == []


def test_timings_that_say_nothing_are_not_kept() -> None:
    add_timings("desk", [Timing("head", "", ratio) for ratio in (0.0, -1.0, float("nan"), float("inf"))])
    assert read_timings("desk") == [] and not database_file().exists()


def test_a_store_that_cannot_be_used_costs_timings_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where a folder should be")
    add_timings("desk", [Timing("head", "", 1.0)], home=tmp_path / "home")
    assert read_timings("desk", home=tmp_path / "home") == []
