"""The clause map: what is answered follows from the files that are there."""

from __future__ import annotations

import json

from tasks.core.bundle import answers
from tasks.core.bundle.clauses import AI_ACT, CLAUSES, GMLP, ISO, RMF


def answered(*names: str) -> dict[str, tuple[str, ...]]:
    return {each.clause.clause: each.files for each in answers.answers(names)}


def test_every_text_that_is_named_has_clauses_with_and_without_an_answer() -> None:
    for source in (AI_ACT, ISO, GMLP):
        assert {bool(clause.files) for clause in CLAUSES if clause.source == source} == {
            True,
            False,
        }
    named = [clause.clause for clause in CLAUSES]
    assert len(named) == len(set(named))
    assert [c.split()[1] for c in named if c.startswith("MEASURE")] == ["2.6", "2.7"]
    assert sum(clause.source == GMLP for clause in CLAUSES) == 10
    assert sum(clause.source == RMF for clause in CLAUSES) == 2


def test_what_is_not_in_the_bundle_answers_nothing() -> None:
    assert not any(answered().values())
    found = answered("tables/verification.csv", "counterexamples/sample_1_eps_0.1.npz")
    assert found["5.3 stability"] == ("tables/verification.csv", "counterexamples/*")
    assert found["Annex IV 2(g): metrics"] == ("tables/verification.csv",)
    assert found["5.5 relevance"] == ()
    assert answered("certificates/a.npz")["5.6 reachability"] == ("certificates/*",)


def test_both_forms_say_the_same() -> None:
    found = answers.answers(["sbom.cdx.json"])
    text = answers.as_markdown(found)
    for each in json.loads(answers.as_json(found)):
        (line,) = [row for row in text.splitlines() if f"| {each['clause']['clause']} |" in row]
        assert ("**nothing**" in line) == (each["files"] == [])
