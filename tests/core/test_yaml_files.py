"""YAML that no reader should be asked to read, each refused in a line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tasks.core.errors import CertiflowError
from tasks.core.yaml_files import parsed_yaml, read_yaml, shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 20_000 + "]" * 20_000, "it is nested too deep"),
        ("\n".join("  " * depth + "a:" for depth in range(3000)), "it is nested too deep"),
        (
            "data:\n  dataset: digits\nb: 1\ndata:\n  dataset: mnist\n",
            "the key 'data' stands twice",
        ),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice"),
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("data:\n\tdataset: x\n", "cannot start any token"),
        ("? [a]\n: b\n", "unhashable key"),
        (
            "data: [1, 2\nb: {a: 1\n",
            "line 2, column 2: expected ',' or ']', but got ':' in what begins in line 1; correct",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CertiflowError) as refused:
        parsed_yaml(text)
    assert said in str(refused.value)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(CertiflowError) as refused:
        read_yaml(path)
    assert str(refused.value).startswith(f"{path}: cannot be read as YAML: ")
    assert "\n" not in str(refused.value)


def test_merged_keys_are_no_keys_that_stand_twice() -> None:
    assert parsed_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2, y: 3}")["b"] == {"x": 2, "y": 3}


def test_aliases_of_billions_of_words_are_told_in_a_line() -> None:
    letters = "abcdefghijkl"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise(letters)
    ]
    value = parsed_yaml("\n".join(lines))["l"]  # a million million words
    assert len(shown(value)) < 50_000
    assert shown("a word") == "'a word'"
