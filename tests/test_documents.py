"""README and docs name files, functions, commands, options, settings and columns that exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from flows.command.cli import app
from tasks.core.evidence import metrics
from tasks.core.evidence.radii import radius_table
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.verdict_columns import STAGES
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.verification.critical_radius import Bracket
from tasks.settings import PropertySettings, RadiusSettings, Settings
from tests.imports import ROOT

HISTORY = ROOT / "CHANGELOG.md"  # names what is gone, too
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")} - {HISTORY})
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)[^)]*\)|<img src=\"([^\"]+)\"")
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:certiflow|make|python -m) [^`]+)`")

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def links(document: Path) -> list[tuple[str, Path]]:
    """Text and target of every link into the repository."""
    found = LINK.findall(document.read_text())
    targets = [(text, target or image) for text, target, image in found]
    return [
        (text, (document.parent / target).resolve())
        for text, target in targets
        if not target.startswith(("http://", "https://"))
    ]


def defined(path: Path) -> set[str]:
    """Names of a module's functions and classes, and `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            kinds = ast.FunctionDef | ast.AsyncFunctionDef
            methods = [part for part in node.body if isinstance(part, kinds)]
            names |= {f"{node.name}.{method.name}" for method in methods}
    return names


def commands(document: Path) -> list[str]:
    """Every line of a shell block and every command in the text, without what follows a `#`."""
    text = document.read_text()
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    lines += INLINE.findall(BLOCK.sub("", text))
    return [line for each in lines if (line := each.partition("#")[0].strip())]


def options_of(words: list[str]) -> set[str]:
    """The options of the subcommand that the words after `certiflow` name."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not getattr(command, "commands", {}):
            break
        command = command.commands[word]
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@documents
def test_links_lead_to_files_and_functions(document: Path) -> None:
    for text, target in links(document):
        assert target.exists(), target
        file, _, name = text.partition(".py:")
        if name:
            assert target.name == f"{file}.py", text
            assert name in defined(target), f"{text}: not in {target}"


def test_the_way_of_a_sample_names_functions() -> None:
    named = [text for text, _ in links(ROOT / "docs/architecture.md") if ".py:" in text]
    assert len(named) > 30


@documents
def test_commands_and_their_options_exist(document: Path) -> None:
    for line in commands(document):
        program, *words = shlex.split(line)
        if Path(program).name == "certiflow" and not words[0].startswith("--"):
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= options_of(words), line


@documents
def test_targets_of_make_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(document):
        program, *words = line.split()
        if program == "make":
            assert words[0] in targets, line


@documents
def test_modules_that_are_run_exist(document: Path) -> None:
    for name in re.findall(r"python -m ((?:flows|tasks|tests|docs)[\w.]*)", document.read_text()):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), name


def test_settings_that_are_documented_are_those_that_exist() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}
    sections = Settings.model_fields.keys() - {"seed"}
    existing = set(Settings().flat()) | {f"radius.{key}" for key in RadiusSettings.model_fields}
    existing |= {f"properties.{key}" for key in PropertySettings.model_fields}
    assert {f"training.{key}" for key in TrainingSettings.model_fields} <= existing
    assert named - sections == existing - sections


def test_columns_of_tables_are_documented() -> None:
    one, each = np.zeros(1, dtype=np.int64), np.zeros((1, 1), dtype=bool)
    result = VerificationResult(0, 0, 0.1, Verdict.UNKNOWN, DecidedBy.CROWN, 0.0)
    bracket = Bracket(0, 0, 0.0, 1.0, None, 0.0, complete=False)
    tables = (
        metrics.epsilon_grid([0.1], one, one, one[None], each, each, positive=0),
        metrics.verification_table([result]),
        radius_table([bracket]),
    )
    columns = {column for table in tables for column in table.columns}
    stages = {f"seconds_{stage}" for stage in STAGES}
    text = (ROOT / "docs/metrics.md").read_text()
    assert [column for column in sorted(columns - stages) if f"`{column}`" not in text] == []
