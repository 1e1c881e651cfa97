"""Some damaged files for each reader; `python -m tests.fuzz` gives them millions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.trying import Trial

FILES = 60


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    trial = Trial(name, tmp_path, seed=1, kept=tmp_path / "wrong")
    for _ in range(FILES):
        trial.attempt()
    assert not trial.wrong, trial.wrong
    assert trial.refused > FILES / 3
