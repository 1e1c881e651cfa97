"""A bundle's files held against each other: every number counted again, all inputs evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.arrays import FloatArray
from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.findings import Findings
from tasks.core.bundle.recount import GRID, VERDICTS, Name, Number, Tables, grid, named, numbers
from tasks.core.bundle.replay import Replay, replayed, replayed_radii
from tasks.core.bundle.statement import ONNX, Statement, claims
from tasks.core.evidence import metrics
from tasks.core.models import loading
from tasks.core.models.runtimes import Runtime
from tasks.core.models.tolerance import ToleranceRuntime
from tasks.core.networks.tolerance import in_float32, within
from tasks.evidence.gathering import (
    AS_TRAINED,
    CARD_OF_MODEL,
    DATA,
    ML_BOM,
    PARQUET,
    RUN,
    told_name,
)
from tasks.presentation.model_card import numbers_of

DRAWN = 128  # inputs, twice, at which two files of a model are held against each other


def described(folder: Path) -> DataDescription:
    """What the bundle says of the data."""
    return DataDescription.model_validate_json((folder / DATA).read_text(encoding="utf-8"))


def counted(tables: Tables, findings: Findings) -> dict[Name, Number]:
    """The numbers of the tables, which must be in order; none where they contradict each other."""
    found, what = dict[Name, Number](), "certified <= PGD <= FGSM <= clean at each point"
    with findings.reading("table", what):
        found = numbers(tables)
        findings.add("table", what, "holds", "holds", same=True)
    return found


def check_claims(
    statement: Statement,
    counts: Mapping[Name, Number],
    data: DataDescription,
    findings: Findings,
) -> None:
    """Every claim against the tables, and what it says of its points and distances."""
    for claim in statement.predicate.claims:
        number = counts.get(claim.name)
        findings.number(
            "claim", told_name(claim.name), claim.value, None if number is None else number.value
        )
        again = claims({claim.name: claim.value}, counts, data, claim.date, claim.who)
        if number is not None and again != (claim,):
            told = again[0] if again else "none that is claimed of models"
            findings.add(
                "claim", f"what {told_name(claim.name)} is of", str(claim), str(told), same=False
            )


def check_run(folder: Path, counts: Mapping[Name, Number], findings: Findings) -> None:
    """Every metric of MLflow's against the tables; those they do not hold are named."""
    left = list[str]()
    for metric, value in json.loads((folder / RUN).read_text(encoding="utf-8"))["metrics"].items():
        number = counts.get(named(metric))
        if number is None:
            left.append(metric)
        else:
            findings.number("MLflow", metric, float(value), number.value)
    families = sorted({metric.partition("/")[0] for metric in left})
    if left:
        findings.skip(
            f"{len(left)} metrics of {', '.join(families)}",
            "they are of the training, of costs, or of what the tables do not hold",
        )


def check_tables(folder: Path, tables: Tables, data: DataDescription, findings: Findings) -> None:
    """Tables that are made of others, and the number of points that they are of."""
    findings.number("table", "test points", data.test, len(tables.points["clean"]))
    verified = sorted(tables.verdicts["sample_index"].unique().tolist())
    findings.number("table", "verified points", len(data.sample), len(verified))
    if verified != list(data.sample):
        findings.add("table", "verified points", "those of data.json", "others", same=False)
    balls = tables.verdicts[["sample_index", "epsilon"]]
    asked = len(verified) * balls["epsilon"].nunique()
    same = len(balls) == asked and not balls.duplicated().any()
    told = f"{len(balls)}" + ("" if same else ", some twice or none")
    findings.add("table", "balls, each once", f"{asked}", told, same)
    if tables.radii is not None:
        _check_radii(tables, tables.radii, findings)
    with findings.reading("table", PARQUET):
        same = pd.read_parquet(folder / PARQUET).equals(pd.read_csv(folder / VERDICTS))
        told = "the same" if same else f"others than in {VERDICTS}"
        findings.add("table", PARQUET, "verdicts", told, same)
    if (folder / GRID).is_file():
        with findings.reading("table", GRID):
            said, again = pd.read_csv(folder / GRID), grid(tables)
            names = [name for name in again.columns if name in said]
            same = len(said) == len(again) and bool(
                np.allclose(said[names], again[names], equal_nan=True)
            )
            told = "the same" if same else "others than in tables/test_points.npz"
            findings.add("table", GRID, "shares", told, same)


def _check_radii(tables: Tables, radii: pd.DataFrame, findings: Findings) -> None:
    """Critical radii against the attack on the whole test set: no certificate goes with them."""
    places = radii["sample_index"].to_numpy()
    broken_at = np.where(tables.points["clean"], metrics.broken_at(tables.points), 0.0)
    wrong = places[(radii["proved"] > 0) & (radii["proved"] >= broken_at[places])]
    wrong = np.append(wrong, places[radii["sample_index"].duplicated()])
    told = f"sample {wrong[0]} is broken nearer, or told twice" if len(wrong) else "none"
    findings.add("table", "critical radii that PGD breaks", "none", told, same=not len(wrong))
    findings.skip(f"{len(radii)} proved critical radii", "no certificate goes with them")


def check_cards(folder: Path, statement: Statement, findings: Findings) -> None:
    """The numbers in the model card and in the bill of materials, against the claims."""
    claimed = {claim.name: claim.value for claim in statement.predicate.claims}
    with findings.reading("model card", CARD_OF_MODEL):
        said = dict(numbers_of((folder / CARD_OF_MODEL).read_text(encoding="utf-8")))
        for name in sorted(said.keys() | claimed.keys(), key=told_name):
            findings.number(
                "model card", told_name(name), said.get(name, np.nan), claimed.get(name)
            )
    with findings.reading("model card", ML_BOM):
        card = json.loads((folder / ML_BOM).read_text(encoding="utf-8"))["metadata"]["component"]
        rows = card["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        stated = sorted((row["type"], float(row["value"])) for row in rows)
        same = stated == sorted((name[0], value) for name, value in claimed.items())
        findings.add("model card", ML_BOM, "numbers", "the same" if same else "others", same)


def deployed(folder: Path, data: DataDescription) -> Runtime:
    """The bundle's ONNX model in onnxruntime, as it answers what the data ask."""
    runtime = loading.load(folder / ONNX).runtime
    if data.tolerance is None:
        return runtime
    return ToleranceRuntime(runtime, in_float32(data.tolerance))


def check_counterexamples(
    folder: Path, verdicts: pd.DataFrame, data: DataDescription, findings: Findings
) -> None:
    """Every broken ball, its input evaluated in onnxruntime."""
    replays = list(replayed(folder, verdicts, data, deployed(folder, data)))
    for epsilon in sorted({replay.epsilon for replay in replays}):
        some = [replay for replay in replays if replay.epsilon == epsilon]
        _tell(some, f"within epsilon {epsilon:g}", "flip", findings)


def check_radii(
    folder: Path,
    radii: pd.DataFrame,
    data: DataDescription,
    inputs: Mapping[int, tuple[Any, int]],
    findings: Findings,
) -> None:
    """Every critical radius that an input bounds; `inputs` are undisturbed ones, by index."""
    replays = list(replayed_radii(folder, radii, data, deployed(folder, data), inputs))
    _tell(replays, "at critical radii", "flip", findings)


def _tell(replays: Sequence[Replay], what: str, claimed: str, findings: Findings) -> None:
    wrong = [replay for replay in replays if replay.problem and not replay.is_open]
    left = [replay for replay in replays if replay.is_open]
    told = f"{len(replays) - len(wrong) - len(left)} {claimed}"
    if wrong:
        told += f"; sample {wrong[0].sample_index}: {wrong[0].problem}"
    count = len(replays) - len(left)
    findings.add("counterexamples", what, f"{count} {claimed}", told, same=not wrong)
    if left:
        findings.skip(f"{len(left)} counterexamples, {what}", left[0].problem)


def trained(folder: Path) -> Path:
    """The file of the model as it was trained."""
    others = sorted((folder / AS_TRAINED).parent.glob(f"{Path(AS_TRAINED).name}.*"))
    return others[0] if others else folder / ONNX


def check_models(folder: Path, data: DataDescription, findings: Findings) -> None:
    """That the model as trained and as ONNX are one network, and the run's."""
    tags = json.loads((folder / RUN).read_text(encoding="utf-8"))["tags"]
    original = loading.load(trained(folder))
    if "network.sha256" in tags:
        answering = original.network
        if data.tolerance is not None:
            answering = within(answering, data.tolerance)
        found = answering.sha256
        same = found == tags["network.sha256"]
        stated = tags["network.sha256"][:8]
        findings.add("model", "SHA-256 of the network verified", stated, found[:8], same)
    if trained(folder) != folder / ONNX:
        other = loading.load(folder / ONNX).network
        points = _drawn(data)[:, : original.network.num_inputs]  # without a target
        one, two = original.network(points), other(points)
        far = float(np.abs(one - two).max()) if one.shape == two.shape else np.inf
        same = far <= 1e-9 * max(float(np.abs(one).max()), 1.0)
        what = f"scores as ONNX and as trained, at {len(points)} inputs drawn anew"
        findings.add("model", what, "the same", f"{far:.2g} apart", same)


def _drawn(data: DataDescription) -> FloatArray:
    """Inputs from all over the domain, and corners of it: others each time, and no proof."""
    generator, domain = np.random.default_rng(), data.perturbation.domain
    shares = generator.random((2, DRAWN, domain.num_inputs))
    shares[1] = shares[1].round()
    return domain.lower + shares.reshape(-1, domain.num_inputs) * (domain.upper - domain.lower)
