"""How every command begins, and how its result ends: as JSON where asked, and on the screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_json

from flows.processes import environment
from tasks.core.errors import CertiflowError
from tasks.core.files import check_writable, output_file

Result = TypeVar("Result")


def begin(
    *, verbose: bool = False, prefect_level: str = "CRITICAL", **outputs: Path | None
) -> None:
    """Quiet and offline libraries, before they are imported, and outputs that can be written.

    `outputs` are the files that options name, by option: checked before minutes of work, not after.

    Raises:
        CertiflowError: names the option whose file cannot be written.
    """
    environment.prepare(verbose=verbose, prefect_level=prefect_level)
    if not verbose:
        environment.hush()
    for option, path in outputs.items():
        if path is None:
            continue
        try:
            check_writable(path)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"--{option} {path}: {reason}: choose another file"
            raise CertiflowError(message) from error


def end(result: Result, json: Path | None, show: Callable[[Result], None]) -> None:
    """Writes the result where `--json` asks for it, if it does, and shows it."""
    write_json(json, result)
    show(result)


def write_json(path: Path | None, values: Any) -> None:
    """Writes the machine-readable result where `--json` asks for it, if it does.

    What JSON has no word for, such as infinity, is null.
    """
    if path is None:
        return
    with output_file(path) as temporary:
        temporary.write_bytes(to_json(values, indent=2, inf_nan_mode="null") + b"\n")
