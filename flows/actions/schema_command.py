"""`certiflow schema`: a table's columns, proposed as a schema to be edited."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from tasks.core.data.frames import read_frame
from tasks.core.data.proposal import propose, read_published
from tasks.core.errors import CertiflowError
from tasks.core.files import output_file
from tasks.core.sources.own_data import SCHEMA_SUFFIXES


def propose_schema(data: Path, target: str, features: Path | None, output: Path | None) -> None:
    """Prints the proposal, or writes it to a new file; the data are named relative to it.

    Raises:
        CertiflowError: a file that cannot be read; an output that is there, or is no YAML file.
    """
    if output is not None and output.suffix not in SCHEMA_SUFFIXES:
        raise CertiflowError(f"--output {output}: expected a .yaml file, as data.dataset takes")
    if output is not None and output.exists():
        raise CertiflowError(f"--output {output} is there: a schema is edited; name a new file")
    folder = Path.cwd() if output is None else output.parent
    published = None if features is None else read_published(features)
    proposal = propose(read_frame(data), os.path.relpath(data, folder), target, published)
    if output is None:
        print(proposal, end="")
        return
    with output_file(output) as temporary:
        temporary.write_text(proposal, encoding="utf-8")
    is_number = "tolerance" in yaml.safe_load(proposal)
    run = "run --set data.dataset=" if not is_number else "evaluate MODEL --data "
    print(f"{output}: edit it, then: certiflow {run}{output}")
