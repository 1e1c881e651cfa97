"""Versions in one store: compared, judged, promoted, refused, rolled back, retrained."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.promotion import promote_flow, rollback_flow
from flows.retraining import retrain_flow
from flows.robustness import robustness_flow
from tasks import tracking
from tasks.core.errors import CertiflowError
from tasks.core.verdicts import Verdict
from tasks.presentation import comparison
from tasks.presentation.records import Summary
from tasks.tracking import RegisteredModel
from tasks.tracking.descriptions import told_decisions
from tasks.versions import decisions, promotion
from tests.command import invoked, refusal
from tests.flow_project import flow_project, smoke

MODEL = "certiflow-digits"
EPOCHS = {"1": 12, "2": 1, "3": 14}  # by version: good, bad, good


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> Iterator[Path]:
    with flow_project(tmp_path_factory.mktemp("project")) as folder:
        yield folder


@pytest.fixture(scope="module")
def versions(project: Path) -> dict[str, Summary]:
    """Three versions, of which the second is bad."""
    made = {}
    for number, epochs in EPOCHS.items():
        summary = robustness_flow(smoke(f"training.epochs={epochs}", "verification.samples=20"))
        assert summary.model_version == number
        made[number] = summary
    return made


def aliases() -> dict[str, int]:
    return RegisteredModel(MODEL).aliases()


def tags(number: int) -> dict[str, str]:
    return dict(RegisteredModel(MODEL).version(number).tags)


# The tests of this file follow one story: each goes on where the one before ended.


def test_the_first_run_makes_the_champion_and_a_later_one_none(
    versions: dict[str, Summary],
) -> None:
    assert aliases() == {"champion": 1}
    assert [versions[number].champion for number in EPOCHS] == [True, False, False]
    assert tags(1)["promotion.decision"] == "promoted"
    assert tags(1)["promotion.reason"] == "no champion to compare with"
    assert "Champion: version 1" in MlflowClient().get_registered_model(MODEL).description
    assert "promotion.decision" not in tags(2)
    with pytest.raises(CertiflowError, match="the first champion"):
        rollback_flow("too early")


def test_no_later_version_is_crowned_unjudged(versions: dict[str, Summary]) -> None:
    MlflowClient().delete_registered_model_alias(MODEL, "champion")  # by hand
    assert decisions.crown_first(MODEL, 3) is None
    assert aliases() == {}
    (compared,) = comparison.compare(comparison.collect([], "certiflow"))
    assert compared.champion is None
    assert [row.version for row in compared.rows][-1] == 2
    assert all(row.differences == {} for row in compared.rows)


def test_rollback_without_a_champion(versions: dict[str, Summary]) -> None:
    with pytest.raises(CertiflowError, match="no champion yet"):
        rollback_flow("too early")


def test_a_version_without_a_champion_becomes_it(versions: dict[str, Summary]) -> None:
    decision = promote_flow("1")
    assert (decision.decision, decision.against) == ("promoted", None)
    assert aliases() == {"champion": 1}
    assert tags(1)["promotion.decision"] == "promoted"
    assert tags(1)["promotion.reason"] == "no champion to compare with"


def test_a_worse_version_is_refused_with_its_numbers(versions: dict[str, Summary]) -> None:
    decision = promote_flow(f"{MODEL}/2")
    assert (decision.decision, decision.against) == ("refused", 1)
    assert "clean accuracy falls by" in decision.reason
    assert aliases() == {"champion": 1, "challenger": 2}
    found = tags(2)
    assert found["promotion.decision"] == "refused"
    assert float(found["promotion.clean_accuracy"]) == pytest.approx(versions["2"].clean_accuracy)
    assert float(found["promotion.clean_accuracy_champion"]) == pytest.approx(
        versions["1"].clean_accuracy
    )
    assert found["promotion.points"] == "20"
    description = RegisteredModel(MODEL).version(2).description
    assert "**Refused** (against version 1)" in description
    assert "clean accuracy" in description.split("**Refused**")[0]  # the run's own words stay
    assert "Champion: version 1" in MlflowClient().get_registered_model(MODEL).description


def test_the_gates_difference_is_the_one_that_is_told(versions: dict[str, Summary]) -> None:
    """On the gate's points, in the table as in the decision; whoever of the two was judged."""
    (compared,) = comparison.compare(comparison.collect(["1", "2"], ""))
    row = next(row for row in compared.rows if row.version == 2)
    told, found = row.differences["certified_accuracy"], tags(2)
    assert (told.sample, told.points) == ("gate", 20)
    assert told.p_value == float(found["promotion.certified_p_value"])
    assert told.new == float(found["promotion.certified_accuracy"])
    assert told.old == float(found["promotion.certified_accuracy_champion"])
    # at another radius the gate did not look
    (elsewhere,) = comparison.compare(comparison.collect(["2"], ""), 0.01)
    assert elsewhere.rows[0].differences["certified_accuracy"].sample == "common"


def test_the_decision_is_an_artifact_in_prefect(versions: dict[str, Summary]) -> None:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["certiflow-decision"]))
        )
    reason = tags(2)["promotion.reason"]
    texts = [str(artifact.data) for artifact in found]
    assert any("**Refused**" in text and reason in text for text in texts)


def test_a_version_that_is_no_worse_takes_over(versions: dict[str, Summary]) -> None:
    assert promote_flow(f"models:/{MODEL}/3").decision == "promoted"
    assert aliases() == {"champion": 3}
    with pytest.raises(CertiflowError, match="champion already"):
        promote_flow("3")


def test_the_old_champion_differs_by_what_the_gate_found(versions: dict[str, Summary]) -> None:
    (compared,) = comparison.compare(comparison.collect(["1", "3"], ""))
    row = next(row for row in compared.rows if row.version == 1)
    told, found = row.differences["certified_accuracy"], tags(3)
    assert told.sample == "gate"
    assert told.new == float(found["promotion.certified_accuracy_champion"])
    assert told.old == float(found["promotion.certified_accuracy"])


def test_certified_accuracy_at_the_gate_is_that_of_the_run(versions: dict[str, Summary]) -> None:
    (at,) = [row for row in versions["3"].verification if row["epsilon"] == 0.05]
    assert float(tags(3)["promotion.certified_accuracy"]) == at["certified_accuracy"]


def test_differences_to_the_champion_are_paired(versions: dict[str, Summary]) -> None:
    (compared,) = comparison.compare(comparison.collect(["2", "1"], ""))
    assert compared.champion == 3  # though it is not among them
    row = next(row for row in compared.rows if row.version == 2)
    clean = row.differences["clean_accuracy"]
    assert clean.value == pytest.approx(versions["2"].clean_accuracy - versions["3"].clean_accuracy)
    assert clean.significant
    assert clean.points == 360
    assert row.differences["certified_accuracy"].points == 20
    (record,) = [r for r in comparison.as_records(compared) if r["version"] == 2]
    assert record["clean_accuracy_test"] == "exact McNemar"
    assert record["median_radius_test"] == "paired bootstrap"
    assert record["certified_accuracy_points"] == 20
    assert record["certified_accuracy_low"] < record["certified_accuracy_high"]
    assert record["certified_accuracy_difference_sample"] == "common"  # never compared at the gate


def test_a_person_may_force_and_take_back(versions: dict[str, Summary]) -> None:
    forced = promote_flow("2", "a demonstration")
    assert (forced.decision, forced.against) == ("forced", 3)
    assert aliases() == {"champion": 2}
    assert "promotion.points" not in tags(2)  # the gate's numbers were about another decision
    back = rollback_flow("the demonstration is over")
    assert (back.decision, back.version, back.against) == ("restored", 3, 2)
    assert aliases() == {"champion": 3}
    assert tags(2)["promotion.decision"] == "rolled back"
    assert tags(2)["promotion.reason"] == "the demonstration is over"
    assert rollback_flow("further").version == 1
    with pytest.raises(CertiflowError, match="the first champion"):
        rollback_flow("too far")
    assert aliases() == {"champion": 1}


def test_decisions_are_tags_and_the_last_three_are_told(versions: dict[str, Summary]) -> None:
    found = told_decisions(tags(2))
    assert [text.split("**")[1] for text in found] == ["Refused", "Forced", "Rolled back"]
    for reason in ("r" * 6000, "fourth", "fifth"):  # the first is longer than the column
        promote_flow("2", reason)
        rollback_flow("and back")
    told = RegisteredModel(MODEL).version(2).description
    words = [text.split("**")[1] for text in told_decisions(tags(2))]
    assert words == ["Refused", *["Forced", "Rolled back"] * 4]
    assert len(told) <= 5000
    assert "fifth" in told
    assert "fourth" not in told
    assert "**Refused**" not in told
    assert "clean accuracy" in told.split("**Forced**")[0]  # the run's own words stay
    assert len(MlflowClient().get_registered_model(MODEL).description) <= 5000


def test_rollback_survives_an_alias_set_by_hand(versions: dict[str, Summary]) -> None:
    MlflowClient().set_registered_model_alias(MODEL, "champion", "3")
    assert rollback_flow("set by mistake").version == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("9", "has no version 9; there are: 1, 2, 3"),
        (f"{MODEL}@winner", "has no winner yet"),
        ("certiflow-mnist/1", "has no version 1; there are: none"),
        ("nobody", "0 runs have this name"),
        ("0" * 32, "no such run"),
    ],
)
def test_what_is_not_there_is_named(words: str, said: str, versions: dict[str, Summary]) -> None:
    with pytest.raises(CertiflowError, match=said):
        comparison.collect([words], "")


def test_a_version_that_is_gone_has_no_decision(versions: dict[str, Summary]) -> None:
    assert RegisteredModel(MODEL).decision(1)["promotion.decision"] == "restored"
    assert RegisteredModel(MODEL).decision(9) == {}


def test_experiments_that_are_empty_or_unknown(versions: dict[str, Summary]) -> None:
    with pytest.raises(CertiflowError, match="experiment nowhere: there is none"):
        comparison.collect([], "nowhere")
    mlflow.create_experiment("empty")
    with pytest.raises(CertiflowError, match="no registered version yet"):
        comparison.collect([], "empty")


def test_a_deleted_run_is_named_with_how_to_restore_it(
    versions: dict[str, Summary], capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = versions["1"].run_id
    said = f"run {run_id} was deleted: `mlflow runs restore --run-id {run_id}` brings it back"
    MlflowClient().delete_run(run_id)
    try:
        compared = comparison.collect([], "certiflow")
        assert {each.version for each in compared} == {2, 3}
        assert f"left out: version 1: {said}" in capsys.readouterr().err
        for refused in (
            lambda: comparison.collect(["1"], ""),
            lambda: promote_flow("1"),
            lambda: retrain_flow(smoke()),
        ):
            with pytest.raises(CertiflowError) as error:
                refused()
            assert str(error.value) == f"{MODEL}/1: {said}"
    finally:
        MlflowClient().restore_run(run_id)


def test_a_failed_run_is_no_evidence(versions: dict[str, Summary]) -> None:
    with pytest.raises(CertiflowError):
        robustness_flow(smoke("training.learning_rate=1e38"))
    (failed,) = mlflow.search_runs(
        experiment_names=["certiflow"], max_results=1, output_format="list"
    )
    with pytest.raises(CertiflowError, match=r"\(FAILED\) holds no whole evidence"):
        comparison.collect([failed.info.run_id], "")


def test_points_that_could_not_be_verified_decide_nothing(
    versions: dict[str, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_sample, before = promotion.verify_sample, aliases()

    def crashing(*arguments: Any, **named: Any) -> Any:
        first, *rest = verify_sample(*arguments, **named)
        return [replace(first, verdict=Verdict.ERROR, reason="it died twice"), *rest]

    monkeypatch.setattr(promotion, "verify_sample", crashing)
    with pytest.raises(CertiflowError, match=r"1 of 20 points could not be verified \(it died"):
        promote_flow("2")
    assert aliases() == before | {"challenger": 2}


def test_a_store_that_fails_is_one_line_and_a_broken_pipe_is_not_its_fault() -> None:
    said = r"promote: MLflow at .* failed \(gone\)"
    with pytest.raises(CertiflowError, match=said), tracking.answered("promote"):
        raise MlflowException("gone")
    with pytest.raises(BrokenPipeError), tracking.answered("compare"):
        raise BrokenPipeError


def test_decisions_that_only_write_start_nothing(
    versions: dict[str, Summary], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(project / "no Prefect"))
    before = aliases()["champion"]
    other = "3" if before == 1 else "1"
    word = ["promote", "--version", other, "--force", "--reason", "a word", "--json", "d.json"]
    said = invoked(monkeypatch, *word)
    assert said.exit_code == 0, said.exception
    assert f"{MODEL} version {other} forced: a word" in said.stdout
    assert json.loads((project / "d.json").read_text())["against"] == before
    assert aliases()["champion"] == int(other)
    assert tags(int(other))["promotion.decision"] == "forced"
    assert "is the champion already" in refusal(monkeypatch, *word[:3])
    back = invoked(monkeypatch, "rollback", "--reason", "taken back")
    assert f"{MODEL} version {before} restored: taken back" in back.stdout
    assert aliases()["champion"] == before
    assert tags(int(other))["promotion.decision"] == "rolled back"
    assert not (project / "no Prefect").exists()


def test_short_forms_mean_the_model_of_the_newest_version(
    versions: dict[str, Summary], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    client = MlflowClient()
    assert tracking.in_full(["1", f"{MODEL}@champion", "v2"]) == [
        f"{MODEL}/1",
        f"{MODEL}@champion",
        f"{MODEL}/2",
    ]
    assert capsys.readouterr().err == ""  # there is no other
    client.create_registered_model("certiflow-another")
    client.create_model_version("certiflow-another", "nowhere")
    assert tracking.in_full(["1", "nobody", f"{MODEL}/2"]) == [
        "certiflow-another/1",
        "nobody",
        f"{MODEL}/2",
    ]
    assert capsys.readouterr().err.startswith("model     certiflow-another, the newest run's")
    found = tracking.find_version("1")
    assert found is not None
    assert found.model == "certiflow-another"
    assert "certiflow-another has no champion" in str(
        invoked(monkeypatch, "rollback", "--reason", "x").exception
    )
    unknown = refusal(monkeypatch, "rollback", "--reason", "x", "--model", "certiflow-no")
    assert "certiflow-no: expected one of the registered models: certiflow-another, " in unknown
    client.delete_registered_model("certiflow-another")


def test_two_gates_at_once_leave_one_champion_that_beat_the_other(
    versions: dict[str, Summary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both compare with champion 2; whoever decides second must compare with the first one."""
    promote_flow("2", "to be beaten by both")
    barrier, compare, compared = threading.Barrier(2), promotion._compare, []

    def together(challenger: Any, champion: Any, *rest: Any) -> Any:
        judgement = compare(challenger, champion, *rest)
        compared.append((challenger.number, champion.number))
        if champion.number == 2:
            barrier.wait(timeout=60)
        return judgement

    monkeypatch.setattr(promotion, "_compare", together)
    decisions: dict[int, Any] = {}

    def decide(number: int) -> None:
        decisions[number] = promote_flow(str(number))

    threads = [threading.Thread(target=decide, args=(number,)) for number in (1, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    champion = aliases()["champion"]
    assert champion in {1, 3}
    assert {(1, 2), (3, 2)} <= set(compared)
    assert (1, 3) in compared or (3, 1) in compared
    assert decisions[champion].decision == "promoted"
    history = MlflowClient().get_registered_model(MODEL).tags["champions"].split()
    assert history[-1] == str(champion)
