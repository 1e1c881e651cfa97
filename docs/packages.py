"""Draws the picture of the packages from the imports: `python -m docs.packages`, from the root.

A box stands higher than all that it imports. An arrow is an import; where a way of arrows leads
there already, it is left out. A circle of imports has no picture: `CycleError` names it.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path
from statistics import mean

from tests.imports import ROOT, imported_modules, project_modules

PICTURE = ROOT / "docs" / "images" / "packages.svg"
# What the stages and `tasks/tracking` share lies in the stages' folder, and beneath both.
SHARED_NAMES = ("settings", "console", "interrupts")
SHARED = f"tasks: {', '.join(SHARED_NAMES)}"
SHARED_FILES = tuple(ROOT / "tasks" / f"{name}.py" for name in SHARED_NAMES)
SHARED_TITLE = "What is asked of a run, what a user sees while it runs, and what ends it"

Graph = Mapping[str, set[str]]

WIDTH, HEIGHT, GAP, RISE, EDGE = 236, 58, 30, 92, 16
LINE_LETTERS = 40  # of the small print, in a box
COLOURS = {"flows": "#fdecc8", "tasks": "#d9e8fb", "tasks/core": "#dff2de"}


def main() -> None:
    """Writes the picture."""
    PICTURE.write_text(picture())
    print(PICTURE.relative_to(ROOT))


def picture() -> str:
    """The SVG's text, the same for the same imports."""
    imports = package_imports()
    arrows = without_detours(imports)
    places = arranged(imports, arrows)
    width = max(x for x, _ in places.values()) + WIDTH + EDGE
    height = max(y for _, y in places.values()) + HEIGHT + EDGE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        'font-family="Helvetica, Arial, sans-serif">',
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#555"/></marker>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *(_arrow(places[one], places[other]) for one in arrows for other in sorted(arrows[one])),
        *(_box(name, place) for name, place in places.items()),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def package_imports() -> dict[str, set[str]]:
    """The packages that each package imports, itself left out."""
    imports: dict[str, set[str]] = {}
    for path in project_modules():
        found = imports.setdefault(package(path), set())
        found |= {package(module) for module in imported_modules(path)} - {package(path)}
    return dict(sorted(imports.items()))


def package(path: Path) -> str:
    """The box that a module lies in: its folder, but for what is shared."""
    return SHARED if path in SHARED_FILES else str(path.parent.relative_to(ROOT))


def title(name: str) -> str:
    """What the package's docstring says up to its first colon, semicolon or full stop."""
    if name == SHARED:
        return SHARED_TITLE
    docstring = ast.get_docstring(ast.parse((ROOT / name / "__init__.py").read_text())) or ""
    first = docstring.splitlines()[0]
    ends = [first.index(mark) for mark in ":;." if mark in first]
    return first[: min(ends, default=len(first))].replace("`", "")


def without_detours(graph: Graph) -> dict[str, set[str]]:
    """The least graph with the same ways (transitive reduction)."""
    reached: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        reached[name] = set().union(graph[name], *(reached[other] for other in graph[name]))
    return {
        name: others - set().union(*(reached[other] for other in others))
        for name, others in graph.items()
    }


def arranged(imports: Graph, arrows: Graph) -> dict[str, tuple[int, int]]:
    """The upper left corner of every box: as low as its imports allow, over their middle."""
    floors: dict[str, int] = {}
    for name in TopologicalSorter(imports).static_order():
        floors[name] = 1 + max((floors[other] for other in imports[name]), default=-1)
    top, centres = max(floors.values()), {}
    for floor in range(top + 1):
        names = sorted(name for name in floors if floors[name] == floor)
        below = {n: mean([centres[o] for o in arrows[n]] or [0.0]) for n in names}
        names.sort(key=lambda name: below[name])
        for index, name in enumerate(names):
            centres[name] = mean(below.values()) + (index - (len(names) - 1) / 2) * (WIDTH + GAP)
    left = min(centres.values())
    return {
        name: (EDGE + round(centres[name] - left), EDGE + RISE * (top - floors[name]))
        for name in floors
    }


def _box(name: str, place: tuple[int, int]) -> str:
    x, y = place
    top = name if name in COLOURS else name.partition(":")[0].rpartition("/")[0] or "tasks"
    rows = "".join(
        f'<tspan x="{x + 10}" dy="14">{escape(line)}</tspan>'
        for line in textwrap.wrap(title(name), LINE_LETTERS)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{COLOURS[top]}" '
        f'stroke="#888"/><text x="{x + 10}" y="{y + 19}" font-size="13" font-weight="bold">'
        f'{escape(name)}</text><text y="{y + 22}" font-size="11" fill="#333">{rows}</text>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] + WIDTH // 2, start[1] + HEIGHT
    x2, y2 = end[0] + WIDTH // 2, end[1] - 1
    bend = (y2 - y1) // 2
    return (
        f'<path d="M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}" fill="none" '
        'stroke="#555" stroke-width="1.4" marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    main()
