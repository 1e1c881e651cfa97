"""Marabou's own program, reading the files that we write, agrees with the ladder's verdicts."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.models.runtimes import Classifier
from tests.bench_marabou_agrees import chosen, compare, summary, verified
from tests.marabou_program import program


def test_marabou_reads_our_files_to_the_same_verdicts(
    classifier: Classifier, digits: Dataset
) -> None:
    command = program()
    if command is None:
        pytest.skip("needs Marabou's program, which maraboupy's wheel puts beside Python")
    results = chosen(verified(classifier, digits, 40, [0.05]), 2)
    compared = list(compare(command, classifier, digits, results))
    assert Counter(each.verdict for each in compared) == {"robust": 2, "falsified": 2}
    assert all(each.agrees for each in compared), compared
    assert summary(compared)["replayed"] == 2
