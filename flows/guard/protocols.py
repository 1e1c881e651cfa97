"""What requests and answers look like: certiflow's own, Open Inference Protocol v2, MLflow's.

https://github.com/kserve/open-inference-protocol, https://mlflow.org/docs/latest/ml/deployment
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson

from flows.guard.service import Answered
from flows.guard.serving import Served
from tasks.core.guard.answers import Answer
from tasks.core.guard.contract import Asked, BrokenRuleError

INPUT = "inputs"
NATIVE = "expected a JSON object with 'inputs', an array, or 'records', features by name"
MLFLOW = "expected one of dataframe_split, dataframe_records, instances and inputs"
V2 = "expected a JSON object with 'inputs': one tensor with name, shape, datatype and data"


def native_inputs(body: bytes, served: Served) -> Asked:
    """Of {"inputs": …} or {"records": …}. Raises `BrokenRuleError`."""
    asked = _object(body, NATIVE)
    if "records" in asked:
        return served.contract.rows(_list(asked["records"]))
    if INPUT not in asked:
        raise BrokenRuleError(NATIVE)
    return served.contract.inputs(asked[INPUT])


def native_answer(answered: Answered) -> dict[str, Any]:
    """All that is known of a request."""
    rows = [
        row | {"digest": digest}
        for row, digest in zip(_rows(answered), answered.digests, strict=True)
    ]
    return {
        "answers": rows,
        "model": answered.served.name,
        "version": answered.served.number,
        "epsilon": answered.served.settings.epsilon,
        "request_id": answered.request,
        "milliseconds": round(answered.milliseconds, 3),
    }


def mlflow_inputs(body: bytes, content_type: str, served: Served) -> Asked:
    """Of MLflow's scoring protocol, JSON or CSV. Raises `BrokenRuleError`."""
    if content_type.partition(";")[0].strip() == "text/csv":
        return served.contract.rows(_records_of_csv(body, served))
    asked = _object(body, MLFLOW)
    if "dataframe_records" in asked:
        return served.contract.rows(_list(asked["dataframe_records"]))
    if "dataframe_split" in asked:
        return _split(asked["dataframe_split"], served)
    for key in ("instances", INPUT):
        if key in asked:
            values = asked[key]
            if isinstance(values, dict) and len(values) == 1:  # one named tensor
                values = next(iter(values.values()))
            return served.contract.inputs(values)
    raise BrokenRuleError(MLFLOW)


def mlflow_answer(answered: Answered) -> dict[str, Any]:
    """A row of guarded columns for each input."""
    return {"predictions": _rows(answered)}


def _rows(answered: Answered) -> list[dict[str, Any]]:
    """Guarded columns, and what stands for empty cells where there are any."""
    names = answered.served.bundle.description.class_names
    rows = [answer.row(names) for answer in answered.answers]
    if not any(answered.completed):
        return rows
    return [row | {"completed": put} for row, put in zip(rows, answered.completed, strict=True)]


def v2_inputs(body: bytes, served: Served) -> tuple[str | None, Asked]:
    """The request's id, and its one FP32 or FP64 tensor. Raises `BrokenRuleError`."""
    asked = _object(body, V2)
    tensors = asked.get(INPUT)
    if not isinstance(tensors, list) or len(tensors) != 1 or not isinstance(tensors[0], dict):
        raise BrokenRuleError(V2)
    tensor = tensors[0]
    if tensor.get("datatype") not in {"FP32", "FP64"}:
        raise BrokenRuleError(f"datatype is {tensor.get('datatype')!r}: expected FP32 or FP64")
    try:
        data = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
    except (KeyError, TypeError, ValueError):
        raise BrokenRuleError(
            f"data does not fill the shape {tensor.get('shape')}: expected as many numbers"
        ) from None
    return asked.get("id"), served.contract.inputs(data)


def v2_answer(answered: Answered, asked_id: str | None) -> dict[str, Any]:
    """A tensor for each of the guarded columns."""
    rows, count = answered.answers, len(answered.answers)
    columns: tuple[tuple[str, str, Callable[[Answer], Any]], ...] = (
        ("label", "INT64", lambda each: -1 if each.label is None else each.label),
        ("decision", "BYTES", lambda each: each.decision.value),
        ("certified_radius", "FP64", lambda each: each.certified_radius),
        ("decided_by", "BYTES", lambda each: each.decided_by),
        ("margin", "FP64", lambda each: each.margin),
    )
    return {
        "model_name": answered.served.name,
        "model_version": str(answered.served.number),
        "id": asked_id or answered.request,
        "outputs": [
            {
                "name": name,
                "shape": [count],
                "datatype": datatype,
                "data": [value(each) for each in rows],
            }
            for name, datatype, value in columns
        ],
    }


def v2_metadata(served: Served) -> dict[str, Any]:
    """Of the model."""
    shape = list(served.bundle.description.shape)
    return {
        "name": served.name,
        "versions": [str(served.number)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *shape]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1]}
            for name, datatype in (
                ("label", "INT64"),
                ("decision", "BYTES"),
                ("certified_radius", "FP64"),
                ("decided_by", "BYTES"),
                ("margin", "FP64"),
            )
        ],
    }


def _object(body: bytes, expected: str) -> Mapping[str, Any]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the body is no JSON ({error}): {expected}") from None
    if not isinstance(asked, dict):
        raise BrokenRuleError(expected)
    return asked


class MalformedError(Exception):
    """The body cannot be read at all."""


def _list(values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise BrokenRuleError("expected a list of rows, one at least")
    return values


def _split(frame: Any, served: Served) -> Asked:
    """Named columns are features; numbers without names, inputs."""
    rows = _list(frame.get("data") if isinstance(frame, dict) else None)
    columns = frame.get("columns")
    if columns is None or not served.bundle.description.features:
        return served.contract.inputs(rows)
    return served.contract.rows(_by_name(columns, rows))


def _by_name(columns: Any, rows: list[Any]) -> list[dict[str, Any]]:
    """Rows by their columns' names, each of which there is once."""
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise BrokenRuleError("expected columns that are a list of names")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise BrokenRuleError(f"the column '{twice[0]}' is there twice: expected each name once")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            found = f"has {len(row)} cells" if isinstance(row, list) else f"is {row!r}"
            raise BrokenRuleError(
                f"row {number} {found}: expected {len(columns)} cells, one for each column"
            )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _records_of_csv(body: bytes, served: Served) -> list[dict[str, Any]]:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedError("the body is no UTF-8: expected CSV with a line of names") from None
    numbers = {
        feature.name for feature in served.bundle.description.features if feature.kind != "category"
    }
    try:
        columns, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row] or [[]]
    except csv.Error as error:
        raise MalformedError(f"the body is no CSV ({error}): expected a line of names") from None
    return [
        {name: _number(cell) if name in numbers else cell for name, cell in row.items()}
        for row in _by_name(columns, _list(rows))
    ]


def _number(cell: Any) -> Any:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell
