"""The statement: what it claims, and every file by its content."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.recount import Name, Number
from tasks.core.bundle.statement import File, Predicate, Statement, claims
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError

FILES = {"model/model.onnx": b"onnx", "tables/a.csv": b"a\n1\n"}
COUNTS: dict[Name, Number] = {
    ("clean_accuracy", None): Number(0.9, 360),
    ("pgd/robust_accuracy", 0.1): Number(0.1 + 0.2, 360),
    ("pgd/robust_accuracy", None): Number(0.1 + 0.2, 360),
    ("verification/certified_accuracy", 0.1): Number(0.25, 4),
    ("verification/seconds/crown", None): Number(3.5, 4),
}


@pytest.fixture
def statement(digits: Dataset) -> Statement:
    data = DataDescription.of(digits, "digits", (1, 2))
    values = {name: number.value for name, number in COUNTS.items()}
    predicate = Predicate(
        subject="certiflow-digits/1",
        run_id="0" * 32,
        certiflow="0.2.0",
        made="2026-11-27T00:00:00+00:00",
        who="somebody",
        claims=claims(values, COUNTS, data, "2026-11-26", "somebody"),
        files={name: File.of(content) for name, content in FILES.items()},
        absent={},
    )
    return Statement.of(("model/model.onnx",), predicate)


def test_it_is_an_in_toto_statement_about_the_model(statement: Statement) -> None:
    found = json.loads(statement.text)
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"].startswith("urn:certiflow:")
    digest = {"sha256": File.of(b"onnx").sha256}
    assert found["subject"] == [{"name": "model/model.onnx", "digest": digest}]
    assert Statement.parsed(statement.text) == statement
    assert Statement.parsed(statement.text).text == statement.text


def test_claims_say_of_what_they_are(statement: Statement, digits: Dataset) -> None:
    found = {claim.name: claim for claim in statement.predicate.claims}
    assert found.keys() == {
        ("clean_accuracy", None),
        ("pgd/robust_accuracy", 0.1),
        ("verification/certified_accuracy", 0.1),
    }
    attacked = found["pgd/robust_accuracy", 0.1]
    assert (attacked.value, attacked.n, attacked.norm) == (0.1 + 0.2, 360, "Linf")
    assert attacked.threat_model is not None
    assert attacked.threat_model.attack == "evasion"
    assert (attacked.domain.points, attacked.domain.sha256) == ("all", digits.sha256)
    assert found["verification/certified_accuracy", 0.1].domain.points == "stratified sample"
    assert found["clean_accuracy", None].threat_model is None


def test_every_file_that_is_another_is_named(statement: Statement) -> None:
    assert statement.differences(FILES) == {}
    for name in FILES:
        assert statement.differences(FILES | {name: b"other"}) == {
            name: "is another file than was signed"
        }
        less = {other: content for other, content in FILES.items() if other != name}
        assert statement.differences(less) == {name: "is missing"}
    assert statement.differences(FILES | {"more": b""}) == {"more": "is not in the statement"}


def test_a_subject_of_another_content_is_named(statement: Statement) -> None:
    found = json.loads(statement.text)
    found["subject"][0]["digest"]["sha256"] = "0" * 64
    other = Statement.parsed(json.dumps(found).encode())
    assert "model/model.onnx" in other.differences(FILES)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "https://slsa.dev/provenance/v1"},
        {"more": 1},
        {"predicate": {}},
    ],
)
def test_another_statement_is_refused(change: dict[str, Any], statement: Statement) -> None:
    wrong = json.loads(statement.text) | change
    with pytest.raises(CertiflowError, match="no statement of certiflow"):
        Statement.parsed(json.dumps(wrong).encode())
