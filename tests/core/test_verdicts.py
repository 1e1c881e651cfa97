"""Verdicts combine so that nothing but proof proves."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest

from tasks.core.verdicts import Verdict, combine


@pytest.mark.parametrize("verdicts", list(combinations_with_replacement(Verdict, 3)))
def test_combination(verdicts: tuple[Verdict, ...]) -> None:
    combined = combine(verdicts)
    assert (combined is Verdict.FALSIFIED) == (Verdict.FALSIFIED in verdicts)
    assert (combined is Verdict.ROBUST) == (set(verdicts) == {Verdict.ROBUST})
    assert combined in verdicts


def test_nothing_asked_proves_nothing() -> None:
    assert combine([]) is Verdict.UNKNOWN
