"""Bills of materials in CycloneDX 1.6: the software of the environment, and the model.

Written by hand, since cyclonedx-python-lib writes no model cards; the same content gives the same
text, its serial number included.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from typing import Any

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.statement import Claim, File

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, SCHEMA)
EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")  # of SPDX licences
LONGEST = 100  # characters of a licence's name: some packages state the whole text


def of_environment(installed: Iterable[Distribution] | None = None) -> bytes:
    """The Python packages that are installed: name, version, purl, licence where stated."""
    found = {_normal(each.name): each for each in installed or distributions()}
    components = [_package(name, each) for name, each in sorted(found.items())]
    subject = {"type": "application", "bom-ref": "environment", "name": "environment"}
    return _bom(subject, components)


def of_model(
    title: str,
    architecture: str,
    models: Mapping[str, File],
    data: DataDescription,
    claims: Iterable[Claim],
) -> bytes:
    """The model with its card: data, files, and what is claimed of it."""
    inputs = "row of a table" if data.features else "image"
    licences = {"licenses": [{"license": {"name": _short(data.licence)}}]} if data.licence else {}
    dataset = {
        "type": "data",
        "bom-ref": "dataset",
        "name": data.name,
        "description": f"{data.train} to train on, {data.test} to test on; {data.citation}".strip(),
        "hashes": [{"alg": "SHA-256", "content": data.sha256}],
        "data": [{"type": "dataset", "name": data.name}],
        **licences,
    }
    card = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "regression" if data.tolerance is not None else "classification",
            "architectureFamily": "neural network",
            "modelArchitecture": architecture,
            "datasets": [{"ref": "dataset"}],
            "inputs": [{"format": f"{inputs}, float32, shape {list(data.shape)}"}],
            "outputs": [{"format": f"logits of {len(data.class_names)} classes"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {
                    "type": claim.metric,
                    "value": repr(claim.value),
                    "slice": f"{claim.domain.points} of the {claim.domain.split} set, n={claim.n}"
                    + ("" if claim.epsilon is None else f", epsilon={claim.epsilon!r}"),
                }
                for claim in claims
            ]
        },
        "considerations": {
            "technicalLimitations": [
                "proofs are of the points and radii named, and of the perturbation in data.json"
            ]
        },
    }
    files = [
        {
            "type": "file",
            "bom-ref": name,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        }
        for name, file in sorted(models.items())
    ]
    subject = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": title,
        "modelCard": card,
    }
    return _bom(subject, [dataset, *files])


def _bom(subject: Mapping[str, Any], components: list[dict[str, Any]]) -> bytes:
    bom: dict[str, Any] = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(bom, sort_keys=True))
    return json.dumps(bom | {"serialNumber": f"urn:uuid:{serial}"}, indent=1).encode() + b"\n"


def _package(name: str, found: Distribution) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{found.version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": found.version,
        "purl": purl,
    }
    expression = _stated(found, "License-Expression")
    if EXPRESSION.fullmatch(expression):
        return component | {"licenses": [{"expression": expression}]}
    classified = [
        line.rpartition(" :: ")[2]
        for line in found.metadata.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    stated = _stated(found, "License")
    names = classified or ([stated] if stated else [])
    if not names:
        return component
    return component | {"licenses": [{"license": {"name": _short(each)}} for each in names]}


def _stated(found: Distribution, field: str) -> str:
    """A field of the package's metadata; '' where it states none."""
    return next(iter(found.metadata.get_all(field) or ()), "").strip()


def _short(licence: str) -> str:
    return " ".join(licence.split())[:LONGEST]


def _normal(name: str) -> str:
    """As PyPI names it."""
    return re.sub(r"[-_.]+", "-", name).lower()
