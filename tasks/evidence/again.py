"""What an audit finds on the data themselves, where they can be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from tasks import console
from tasks.core.arrays import Float32Array
from tasks.core.bundle import rerun
from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.findings import Findings
from tasks.core.bundle.recount import Tables
from tasks.core.bundle.replay import undisturbed
from tasks.core.bundle.statement import ONNX
from tasks.core.data.datasets import Dataset, stratified_sample
from tasks.core.errors import CertiflowError
from tasks.core.evidence import by_class
from tasks.core.files import ArtifactRef
from tasks.core.models import loading
from tasks.core.models.network_classifier import NetworkClassifier
from tasks.core.models.tolerance import answering
from tasks.core.sources.catalogue import SOURCES
from tasks.core.sources.download import fetch
from tasks.core.yaml_files import read_yaml
from tasks.data import load_checked
from tasks.evidence.examination import trained
from tasks.evidence.gathering import RUN, told_name
from tasks.settings import DataSettings, Settings
from tasks.train import load_classifier

WORDS = {"licence", "citation", "notes"}  # that change nothing
MEASURE_SLACK = 0.002  # of a few points whose sums come in another order


def settings_of(folder: Path) -> Settings:
    """The run's settings; raises `CertiflowError` where they are of another certiflow's."""
    try:
        return Settings.model_validate(read_yaml(folder / "config.yaml"))
    except ValidationError as error:
        raise CertiflowError("config.yaml does not fit this version of certiflow") from error


def check_settings(folder: Path, settings: Settings, findings: Findings) -> None:
    """The settings' file against the params in MLflow; what only one version knows is left out."""
    params = json.loads((folder / RUN).read_text(encoding="utf-8"))["params"]
    flat = settings.flat()
    wrong = [key for key in sorted(flat.keys() & params.keys()) if str(flat[key]) != params[key]]
    told = f"{wrong[0]} is {flat[wrong[0]]}" if wrong else "the same"
    findings.add("MLflow", "settings in config.yaml", "params of the run", told, same=not wrong)


def obtained(data: DataDescription, settings: DataSettings) -> Dataset:
    """The data that a bundle speaks of, from the catalogue or a file here.

    Of `settings` only what says which data is looked at: they may be a stranger's.

    Raises:
        CertiflowError: they cannot be had, or are others.
    """
    here = DataSettings()
    if data.source not in SOURCES and not Path(data.source).is_file():
        raise CertiflowError(f"{data.source} is not here, and not in the catalogue")
    own = settings.model_copy(
        update={"dataset": data.source, "cache": here.cache.absolute(), "fallback": None}
    )
    fetch(data.source, own.cache, on_warning=console.warn)
    found = load_checked(own)
    if found.sha256 != data.sha256:
        raise CertiflowError(f"{data.source} is other data here: {found.sha256}")
    return found


def check_data(data: DataDescription, dataset: Dataset, findings: Findings) -> None:
    """What the bundle says of the data, what an attacker may do to them included."""
    said = data.model_dump()
    found = DataDescription.of(dataset, data.source, data.sample).model_dump()
    wrong = [name for name in said if name not in WORDS and said[name] != found[name]]
    told = f"another {wrong[0]}" if wrong else "the same"
    findings.add("again", "data.json beside the data", "the same", told, same=not wrong)


def check_drawn(tables: Tables, settings: Settings, dataset: Dataset, findings: Findings) -> None:
    """That the points are those that the run's seed draws, and were not chosen."""
    count = settings.verification.count_of(len(dataset.test_labels))
    drawn = {"verified points": (tables.verdicts, count)}
    if tables.radii is not None and settings.radius is not None:
        drawn["points with critical radii"] = (tables.radii, settings.radius.samples)
    for what, (table, size) in drawn.items():
        expected = stratified_sample(dataset.test_labels, size, settings.seed).tolist()
        same = sorted(table["sample_index"].unique().tolist()) == expected
        told = "they are" if same else "others"
        findings.add("again", f"{what} as the seed draws them", "they are", told, same)


def check_sample(
    folder: Path, verdicts: pd.DataFrame, dataset: Dataset, findings: Findings
) -> dict[int, tuple[Any, int]]:
    """The verified points in the data, (input, label) by index; the files must agree with them."""
    labels = dict(zip(verdicts["sample_index"], verdicts["label"], strict=True))
    points = {
        int(index): (dataset.test_inputs[int(index)], int(dataset.test_labels[int(index)]))
        for index in labels
    }
    wrong = [index for index, (_, label) in points.items() if labels[index] != label]
    for index, (clean, label) in undisturbed(folder).items():
        known = points.get(index)
        if (
            known is None
            or label != known[1]
            or not np.array_equal(clean.ravel(), known[0].ravel())
        ):
            wrong.append(index)
    findings.add(
        "again",
        "verified points in the test set",
        f"{len(points)}",
        f"sample {wrong[0]} is another" if wrong else f"{len(points)}",
        same=not wrong,
    )
    return points


def check_accuracy(
    folder: Path,
    tables: Tables,
    dataset: Dataset,
    settings: Settings,
    findings: Findings,
    *,
    quick: bool,
) -> None:
    """Clean accuracy and bounds of the ONNX model, and attacks on the model as trained.

    With `quick` clean accuracy alone.
    """
    loaded = answering(loading.load(folder / ONNX), dataset)
    logits = NetworkClassifier(loaded.runtime, loaded.network).logits(dataset.test_inputs)
    found = [rerun.clean(tables.points, logits, dataset)]
    if dataset.tolerance is None:
        _check_measures(folder, logits, dataset, findings)
    if quick:
        findings.skip("FGSM, PGD and linear bounds on the whole test set", "--quick")
    else:
        found += rerun.certified(tables.points, loaded.network, dataset)
        classifier = load_classifier(
            ArtifactRef.to(trained(folder)), dataset, settings.attack.batch_size
        )
        found += rerun.attacked(
            tables.points,
            classifier,
            dataset,
            num_steps=settings.attack.pgd_steps,
            num_restarts=settings.attack.pgd_restarts,
            seed=settings.seed,
        )
    for each in found:
        differing = (
            f" ({each.differing} of {each.points:,} points differ)" if each.differing else ""
        )
        told = f"{each.found:.9g}{differing}"
        what = told_name((each.metric, each.epsilon))
        findings.add("again", what, f"{each.claimed:.9g}", told, each.same)


def _check_measures(
    folder: Path, logits: Float32Array, dataset: Dataset, findings: Findings
) -> None:
    """What accuracy hides, in the run's metrics, against the model's answers."""
    said = json.loads((folder / RUN).read_text(encoding="utf-8"))["metrics"]
    for name, found in by_class.measures(dataset.test_labels, logits, dataset.positive).items():
        if name in said:
            same = abs(float(said[name]) - found) <= MEASURE_SLACK
            findings.add("again", name, f"{float(said[name]):.9g}", f"{found:.9g}", same)
