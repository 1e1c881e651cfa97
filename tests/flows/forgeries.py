"""Changes of a bundle's files that its author could have made and signed."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper

from tasks.core.bundle.statement import ONNX

Files = dict[str, bytes]


def with_table(files: Files) -> Files:
    """A broken ball is said to be proved."""
    table = pd.read_csv(io.BytesIO(files["tables/verification.csv"]))
    place = table.index[table["verdict"] == "falsified"][0]
    table.loc[place, "verdict"] = "robust"
    return {"tables/verification.csv": table.to_csv(index=False).encode()}


def with_weaker_table(files: Files) -> Files:
    """A proof is left out, which contradicts nothing."""
    table = pd.read_csv(io.BytesIO(files["tables/verification.csv"]))
    place = table.index[table["verdict"] == "robust"][0]
    table.loc[place, "verdict"] = "unknown"
    return {"tables/verification.csv": table.to_csv(index=False).encode()}


def with_points(files: Files) -> Files:
    """All test points are said to be right, undisturbed."""
    with np.load(io.BytesIO(files["tables/test_points.npz"])) as arrays:
        points = dict(arrays)
    points["clean"][:] = True
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **points)
    return {"tables/test_points.npz": buffer.getvalue()}


def with_doubled_rows(files: Files) -> Files:
    """Proofs are counted twice."""
    table = pd.read_csv(io.BytesIO(files["tables/verification.csv"]))
    table = pd.concat([table, table[table["verdict"] == "robust"]])
    return {"tables/verification.csv": table.to_csv(index=False).encode()}


def with_points_of_choice(files: Files) -> Files:
    """Fewer points than the seed draws, the rest as they are."""
    table = pd.read_csv(io.BytesIO(files["tables/verification.csv"]))
    radii = pd.read_csv(io.BytesIO(files["tables/critical_radius.csv"]))
    left = radii["sample_index"].iloc[:-1]
    radii = radii[radii["sample_index"].isin(left)]
    table = table[table["sample_index"] != table["sample_index"].max()]
    return {
        "tables/verification.csv": table.to_csv(index=False).encode(),
        "tables/critical_radius.csv": radii.to_csv(index=False).encode(),
    }


def with_radii(files: Files) -> Files:
    """Proved farther than an attack reaches."""
    radii = pd.read_csv(io.BytesIO(files["tables/critical_radius.csv"]))
    radii["proved"], radii["falsified"] = 0.3, np.inf
    return {"tables/critical_radius.csv": radii.to_csv(index=False).encode()}


def with_smaller_moves(files: Files) -> Files:
    """An attacker may do a tenth of what is claimed."""
    data = json.loads(files["data.json"])
    data["down"] = data["up"] = [0.1 * each for each in data["up"]]
    return {"data.json": json.dumps(data).encode()}


def with_metric(files: Files) -> Files:
    run = json.loads(files["run.json"])
    run["metrics"]["pgd/robust_accuracy/eps_0.1"] += 0.01
    return {"run.json": json.dumps(run).encode()}


def with_settings(files: Files) -> Files:
    return {"config.yaml": files["config.yaml"].replace(b"pgd_steps: 5", b"pgd_steps: 50")}


def with_page(files: Files) -> Files:
    page = files["report.html"].decode()
    share = re.search(r"<td>(\d+\.\d\d%)<br>", page)
    assert share is not None
    return {"report.html": page.replace(share[0], "<td>99.99%<br>", 1).encode()}


def with_card(files: Files) -> Files:
    card = files["model_card.md"].decode()
    value = re.search(r"type: clean_accuracy\n\s+value: (0\.\d+)", card)
    assert value is not None
    return {"model_card.md": card.replace(value[1], "0.999", 1).encode()}


def with_counterexample(files: Files) -> Files:
    """The undisturbed input in the place of what breaks it."""
    name = next(each for each in sorted(files) if re.search(r"_eps_[\d.]+\.npz", each))
    with np.load(io.BytesIO(files[name])) as arrays:
        found = dict(arrays)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **(found | {"image": found["clean"]}))
    return {name: buffer.getvalue()}


def without_counterexample(files: Files) -> Files:
    name = next(each for each in sorted(files) if re.search(r"_eps_[\d.]+\.npz", each))
    return {name: b""}


def with_model(files: Files) -> Files:
    """Another network, in which the first class wins more often."""
    model = onnx.load_from_string(files[ONNX])
    tensor = next(each for each in model.graph.initializer if list(each.dims) == [10])
    bias = numpy_helper.to_array(tensor).copy()
    bias[0] += 100
    tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))
    return {ONNX: model.SerializeToString()}


def with_sample(files: Files) -> Files:
    data = json.loads(files["data.json"])
    data["sample"] = data["sample"][1:]
    return {"data.json": json.dumps(data).encode()}


def with_damaged_certificate(files: Files) -> Files:
    name = "certificates/eps_0.02.npz"
    return {name: files[name][:-40]}


def without_certificate(files: Files) -> Files:
    """In its place one of no proofs."""
    name = "certificates/eps_0.02.npz"
    with np.load(io.BytesIO(files[name])) as arrays:
        found = dict(arrays)
    header = json.loads(found["header"].tobytes()) | {"names": []}
    return {name: certificate(found | {"header": header}, question_label=[])}


def with_certificate_of_smaller_balls(files: Files) -> Files:
    """Proofs at a radius are given out as proofs at a greater one."""
    with np.load(io.BytesIO(files["certificates/eps_0.02.npz"])) as arrays:
        found = dict(arrays)
    header = json.loads(found["header"].tobytes())
    header["names"] = [name.replace("@0.02", "@0.2") for name in header["names"]]
    return {"certificates/eps_0.2.npz": certificate(found | {"header": header})}


def certificate(arrays: dict[str, Any], **more: Any) -> bytes:
    header = np.frombuffer(json.dumps(arrays["header"]).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **(arrays | {"header": header} | more))
    return buffer.getvalue()


def with_noise(files: Files) -> Files:
    return {"tables/verification.csv": b"\xff\x00 no table"}
