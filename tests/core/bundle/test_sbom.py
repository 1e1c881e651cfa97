"""Bills of materials: valid, whole, and the same for the same content."""

from __future__ import annotations

import json
import re
from importlib.metadata import version

from tasks.core.bundle import sbom
from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.recount import Number
from tasks.core.bundle.statement import File, claims
from tasks.core.data.datasets import Dataset
from tests.core.bundle.cyclonedx_schema import problems


def model_bom(digits: Dataset) -> bytes:
    data = DataDescription.of(digits, "digits", (1, 2))
    counts = {
        ("clean_accuracy", None): Number(0.5, 360),
        ("pgd/robust_accuracy", 0.1): Number(0, 360),
    }
    values = {name: number.value for name, number in counts.items()}
    claimed = claims(values, counts, data, "2026-11-27", "somebody")
    models = {"model/model.onnx": File.of(b"onnx")}
    return sbom.of_model("certiflow-digits/1", "dense-16", models, data, claimed)


def test_the_environment_is_all_that_is_installed() -> None:
    bom = sbom.of_environment()
    assert problems(bom) == []
    components = {each["name"]: each for each in json.loads(bom)["components"]}
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{version('numpy')}"
    assert components["scikit-learn"]["version"] == version("scikit-learn")
    assert components["numpy"]["licenses"]
    assert len(components) > 100
    assert bom == sbom.of_environment()


def test_the_model_has_its_card(digits: Dataset) -> None:
    bom = model_bom(digits)
    assert problems(bom) == []
    found = json.loads(bom)
    card = found["metadata"]["component"]["modelCard"]
    rows = {row["type"]: row for row in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert rows["clean_accuracy"]["value"] == "0.5"
    assert rows["pgd/robust_accuracy"]["slice"].endswith("n=360, epsilon=0.1")
    hashes = {each["name"]: each["hashes"][0]["content"] for each in found["components"]}
    assert hashes == {"digits": digits.sha256, "model/model.onnx": File.of(b"onnx").sha256}


def test_the_schema_refuses_what_is_no_bill_of_materials() -> None:
    licence = {"license": {"id": "no licence of SPDX's"}}
    component = {"type": "library", "name": "a", "licenses": [licence]}
    wrong = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [component]}
    assert problems(json.dumps(wrong).encode())


def test_serial_numbers_follow_from_the_content(digits: Dataset) -> None:
    serials = {
        json.loads(bom)["serialNumber"] for bom in (model_bom(digits), sbom.of_environment())
    }
    assert len(serials) == 2
    assert model_bom(digits) == model_bom(digits)
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", serial) for serial in serials)
