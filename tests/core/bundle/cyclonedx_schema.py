"""CycloneDX's own schema, as cyclonedx-python-lib brings it along: nothing is fetched."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry, Resource

BASE = "http://cyclonedx.org/schema/"
PARTS = ("bom-1.6", "spdx", "jsf-0.82")


@cache
def _validator() -> Any:
    folder = files("cyclonedx.schema") / "_res"
    parts = {
        f"{part}.SNAPSHOT.schema.json": json.loads(
            (folder / f"{part}.SNAPSHOT.schema.json").read_text()
        )
        for part in PARTS
    }
    bom = next(iter(parts.values())) | {"$id": BASE}  # the others are named beside it
    named = [(BASE + name, Resource.from_contents(part)) for name, part in parts.items()]
    return Draft7Validator(bom, registry=Registry().with_resources(named))


def problems(bom: bytes) -> list[str]:
    """What the schema finds wrong with a bill of materials in JSON."""
    return [
        f"{error.json_path}: {error.message}" for error in _validator().iter_errors(json.loads(bom))
    ]
