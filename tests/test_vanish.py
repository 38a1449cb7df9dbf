"""Of made-up trees, tables and archives, what is used and what is left out is all that is there.

`fuzz/vanish.py` makes them up and counts; `make fuzz` tries ten thousand.
"""

import runpy
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MADE_UP = runpy.run_path(str(Path(__file__).parent.parent / "fuzz" / "vanish.py"))


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_nothing_vanishes(tmp_path, seed):
    folder = tmp_path / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    MADE_UP["once"](seed, folder)
