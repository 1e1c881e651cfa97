"""Tables whose target is a number: rows that end with it, and what of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.core.data.datasets import Dataset, Extent
from tasks.core.data.frames import read_frame
from tasks.core.data.proposal import propose
from tasks.core.data.tables import read_rows
from tasks.core.errors import CertiflowError
from tasks.core.pairs.requirements import required
from tasks.core.sources.catalogue import load
from tasks.settings import DataSettings

ROWS = 40
AREAS = np.sort(np.arange(ROWS) % 37) + 30  # some twice: else they would be an identifier
PRICES = 2000.0 * AREAS + 0.5
SCHEMA: dict[str, Any] = {
    "source": "houses.csv",
    "target": "price",
    "tolerance": 10_000,
    "features": [
        {"name": "area", "kind": "integer", "lower": 10, "upper": 200},
        {"name": "town", "kind": "category", "categories": ["a", "b"], "mutable": False},
    ],
    "relations": ["town[a] == 1 -> area <= 150"],
}


def written(folder: Path, prices: list[Any] | None = None, **changes: Any) -> Path:
    towns = np.where(AREAS % 2 == 0, "a", "b")
    price = list(PRICES) if prices is None else prices
    frame = pd.DataFrame({"area": AREAS, "town": towns, "price": price})
    frame.to_csv(folder / "houses.csv", index=False)
    path = folder / "houses.yaml"
    path.write_text(yaml.safe_dump(SCHEMA | changes))
    return path


def read(folder: Path, prices: list[Any] | None = None, **changes: Any) -> Dataset:
    return load(str(written(folder, prices, **changes)), folder)


def test_rows_end_with_the_target_that_nobody_can_change(tmp_path: Path) -> None:
    data = read(tmp_path)
    inputs = np.concatenate([data.train_inputs, data.test_inputs])
    inputs = inputs[inputs[:, 0].argsort()]
    np.testing.assert_array_equal(inputs[:, 0], AREAS)
    np.testing.assert_array_equal(inputs[:, 1], AREAS % 2 == 0)
    np.testing.assert_array_equal(inputs[:, 3], PRICES)
    assert not data.train_labels.any()
    assert not data.test_labels.any()
    assert data.class_names == ("within 10,000", "too high", "too low")
    assert data.extent == Extent((3,), 1, ROWS // 5)
    assert [feature.name for feature in data.features] == ["area", "town"]
    assert data.reference is not None
    assert data.reference.name == "price"
    box = data.perturbation.box(inputs, 1.0)
    np.testing.assert_array_equal(box.lower[:, 3], PRICES)
    np.testing.assert_array_equal(box.upper[:, 3], PRICES)
    assert (box.upper[:, 0] > box.lower[:, 0]).all()
    assert not data.domain.contains(np.array([[160.0, 1, 0, 5]]))[0]  # relations hold on


def test_another_tolerance_is_another_dataset(tmp_path: Path) -> None:
    assert read(tmp_path).sha256 == read(tmp_path).sha256
    assert read(tmp_path).sha256 != read(tmp_path, tolerance=10_001).sha256


def test_new_rows_need_no_target(tmp_path: Path) -> None:
    data = read(tmp_path)
    (tmp_path / "new.csv").write_text("town,area\nb,44\n")
    _, inputs, _ = read_rows(tmp_path / "new.csv", data.features)
    np.testing.assert_array_equal(inputs, [[44, 0, 1]])


def changed(row: int, value: Any) -> list[Any]:
    return [value if place == row else price for place, price in enumerate(PRICES)]


@pytest.mark.parametrize(
    ("prices", "changes", "said"),
    [
        (changed(3, "dear"), {}, "row 4: price is 'dear': expected a number"),
        (changed(3, ""), {}, "row 4: price is empty: expected a number, the target"),
        (changed(3, ""), {"missing": "impute"}, "row 4: price is empty: expected a number, the t"),
        (changed(0, "inf"), {}, "row 1: price is 'inf': expected -9"),
        (changed(0, 1e38), {}, "row 1: price is '1e"),
        ([7.0] * ROWS, {}, "the target price is constant: every row is 7"),
        (None, {"target": "prize"}, "has no column 'prize': did you mean 'price'"),
        ((PRICES + 1e9).tolist(), {"tolerance": 60}, "loses up to .* as a float32 number"),
        (None, {"test_share": 0.999}, "40 rows: too few rows to set 0.999 of them aside"),
    ],
)
def test_targets_that_are_none_are_one_line(
    prices: list[Any] | None, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CertiflowError, match=said) as raised:
        read(tmp_path, prices, **changes)
    assert "\n" not in str(raised.value)


def test_a_positive_class_is_refused(tmp_path: Path) -> None:
    settings = DataSettings(dataset=str(written(tmp_path)), positive="too high")
    with pytest.raises(CertiflowError, match="houses has a tolerance and no classes"):
        settings.load()


def test_what_can_be_required_of_features(tmp_path: Path) -> None:
    data = read(tmp_path)
    assert [each.name for each in required({}, ["town"], data)] == ["fair/town"]
    with pytest.raises(CertiflowError, match=r"properties.monotone: houses has a tolerance"):
        required({"area": "up"}, [], data)
    with pytest.raises(CertiflowError, match="price is the target: expected a feature"):
        required({}, ["price"], data)


def test_a_tolerance_is_proposed_for_a_number_of_many_values(tmp_path: Path) -> None:
    written(tmp_path)
    text = propose(read_frame(tmp_path / "houses.csv"), "houses.csv", "price")
    proposed = yaml.safe_load(text)
    tenth = PRICES.std() / 10
    assert proposed["tolerance"] == pytest.approx(tenth, rel=0.25)
    assert len(f"{proposed['tolerance']}".strip("0")) == 1  # a round number, to be edited
    assert "classes" not in proposed
    assert [feature["name"] for feature in proposed["features"]] == ["area", "town"]
    (tmp_path / "houses.yaml").write_text(text)
    assert load(str(tmp_path / "houses.yaml"), tmp_path).tolerance == proposed["tolerance"]


def test_few_numbers_are_classes(tmp_path: Path) -> None:
    written(tmp_path, [float(number % 7) for number in range(ROWS)])
    text = propose(read_frame(tmp_path / "houses.csv"), "houses.csv", "price")
    assert "tolerance" not in yaml.safe_load(text)
