"""The map of the code is current: the picture of packages, and what each package says of itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from docs import packages
from tests.imports import ROOT, project_modules

# Each may import the ones before it, and the core.
OUTSIDE_THE_CORE = (
    "tasks/api",
    "tasks/checker",
    packages.SHARED,
    "tasks/tracking",
    "tasks/presentation",
    "tasks",
    "tasks/evidence",
    "tasks/versions",
    "tasks/guarding",
    "flows/processes",
    "flows",
    "flows/guard",
    "flows/actions",
    "flows/command",
)
PACKAGES = sorted({path.parent for path in project_modules()})


def test_picture_is_drawn_from_the_imports_as_they_are() -> None:
    assert packages.PICTURE.read_text() == packages.picture(), (
        "the imports have changed: look at what `python -m docs.packages` draws, and commit it"
    )


def test_picture_shows_every_package_and_no_way_back() -> None:
    imports = packages.package_imports()
    assert {str(path.relative_to(ROOT)) for path in PACKAGES} <= imports.keys()
    places = packages.arranged(imports, packages.without_detours(imports))
    for name, others in imports.items():
        assert all(places[other][1] > places[name][1] for other in others), name


def test_packages_outside_the_core_import_those_before_them() -> None:
    for name, others in packages.package_imports().items():
        outside = {other for other in others if not other.startswith("tasks/core")}
        known = name in OUTSIDE_THE_CORE
        allowed = OUTSIDE_THE_CORE[: OUTSIDE_THE_CORE.index(name)] if known else ()
        if name == "tasks/core/certificates":  # writes what the checker reads
            allowed = ("tasks/checker",)
        assert outside <= set(allowed), name


def test_arrows_left_out_lead_where_others_lead() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set[str](), "e": {"d"}}
    assert packages.without_detours(graph) == {
        "a": {"b"},
        "b": {"c"},
        "c": {"d"},
        "d": set(),
        "e": {"d"},
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_package_says_what_it_may_import_and_guarantees(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert docstring is not None
    assert "import" in docstring
    assert "Guarantees: " in docstring
