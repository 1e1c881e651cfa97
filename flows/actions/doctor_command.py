"""What `certiflow doctor` says of a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from flows.actions.head import write_json
from flows.actions.looking import data_named, extent_of
from flows.actions.verify_command import model_path
from tasks.core.files import plain
from tasks.core.models.doctor import examine
from tasks.core.models.examination import Examination

ENDINGS = {
    "logits": "logits",
    "softmax": "softmax, taken off: the greatest logit decides the same",
    "log_softmax": "log-softmax, taken off: the greatest logit decides the same",
    "logistic": "logistic of a score and its negative, taken off: the greater one decides the same",
    "sigmoid": "sigmoid, taken off: label 1 where its logit is above 0",
}


def diagnosed(model: str, data: str | None, json: Path | None) -> bool:
    """Whether the model can be verified, on the dataset if one is given; says why not."""
    found = examine(plain(model_path(model)))
    if data is not None:
        settings = data_named(data)
        found = found.against(settings.name, extent_of(settings))
    write_json(json, {**asdict(found), "verifiable": found.is_verifiable})
    _show(found)
    return found.is_verifiable


def _show(found: Examination) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    facts = {
        "format": found.format,
        "inputs": None if found.input_shape is None else "x".join(map(str, found.input_shape)),
        "outputs": found.outputs,
        "parameters": None if found.parameters is None else f"{found.parameters:,}",
        "normalisation": found.normalisation or "none",
        "ends with": ENDINGS[found.ending],
    }
    console.print(found.file)
    for name, value in facts.items():
        console.print(f"  {name:<14}{'not said' if value is None else value}")
    for layer in found.layers:
        console.print(f"  {layer.number:>4} {layer.name:<24} {layer.kind}")
        if layer.obstacle:
            console.print(f"       blocks: {layer.obstacle}")
    for block in found.blocks:
        console.print(f"  blocks: {block}")
    console.print("can be verified" if found.is_verifiable else "cannot be verified")
