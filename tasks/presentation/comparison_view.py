"""The comparison as it is shown: one set of rows, columns, formats and marks for every medium.

A terminal (`flows.actions.comparison_table`), the page (`tasks.presentation.page`) and Markdown
(`tasks.presentation.descriptions`) lay it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.core.evidence.comparison import DEPLOYED
from tasks.core.evidence.paired import BOOTSTRAP, GATE, MCNEMAR, Difference
from tasks.core.evidence.sampling import CONFIDENCE, DRAWN, METHOD, interval_text
from tasks.presentation.records import Comparison, Row
from tasks.settings import decimal

UNKNOWN = "-"
BEYOND = "*"  # marks a difference beyond sampling error


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.2%}"


def _points(value: float) -> str:
    return f"{100 * value:+.2f}"


def _radius(value: float) -> str:
    return f"{value:.4f}"


def _change_of_radius(value: float) -> str:
    return f"{value:+.4f}"


@dataclass(frozen=True)
class Figure:
    """What is shown of each version; `narrow` is the heading where a line has 80 characters."""

    measure: str
    heading: str
    narrow: str
    shown: Callable[[float], str]
    signed: Callable[[float], str] = _points  # of a difference


COLUMNS = (
    Figure("certified_accuracy", "certified", "certi-\nfied", _share),
    Figure(DEPLOYED, "deployed", "de-\nployed", _share),
    Figure("median_radius", "median radius", "median\nradius", _radius, _change_of_radius),
    Figure("pgd_accuracy", "under PGD", "under\nPGD", _share),
    Figure("fgsm_accuracy", "under FGSM", "under\nFGSM", _share),
    Figure("clean_accuracy", "clean", "clean", _share),
    Figure("parameters", "parameters", "para-\nmeters", _count),
    Figure("train_seconds", "train s", "train\ns", _seconds),
    Figure("verification_seconds", "verify s", "verify\ns", _seconds),
)
SAMPLED = ("certified_accuracy", DEPLOYED, "median_radius")  # not of the whole test set


@dataclass(frozen=True)
class Cell:
    """A value, what it was measured on where that is a sample, and how the champion's differs.

    Attributes:
        interval: `36-81%`, or nothing.
        points: how many a sampled number is of.
        difference: signed, in percentage points or radii, or nothing.
        mark: `BEYOND`, or nothing.
        over: `n = 100` where the difference is of another number of points than the value.
    """

    text: str = UNKNOWN
    interval: str = ""
    points: int | None = None
    difference: str = ""
    mark: str = ""
    kind: Literal["same", "better", "worse"] = "same"
    over: str = ""

    @property
    def sample(self) -> str:
        """Interval and number of points: `36-81%, n = 20`."""
        points = "" if self.points is None else f"n = {self.points}"
        return ", ".join(part for part in (self.interval, points) if part)


@dataclass(frozen=True)
class Line:
    """A version with a cell for each of `COLUMNS`."""

    name: str
    aliases: tuple[str, ...]
    architecture: str
    run_id: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ComparisonView:
    """Lines, best first, and the sentences that say how to read them."""

    title: str
    lines: tuple[Line, ...]
    reading: tuple[str, ...]


def view(comparison: Comparison, names: Mapping[str, str] | None = None) -> ComparisonView:
    """The comparison in words; `names` by run id stand instead of versions and their aliases."""
    named = names or {}
    lines = [
        _line(row, _name(row, named), () if row.run_id in named else row.aliases)
        for row in comparison.rows
    ]
    return ComparisonView(
        title=f"{comparison.dataset}: versions, best first, at epsilon "
        f"{decimal(comparison.epsilon)}",
        lines=tuple(lines),
        reading=(*_samples(comparison.rows), *_differences(comparison, named)),
    )


def _name(row: Row, named: Mapping[str, str]) -> str:
    return named.get(row.run_id, row.run_name if row.version is None else f"v{row.version}")


def _line(row: Row, name: str, aliases: tuple[str, ...]) -> Line:
    return Line(
        name=name,
        aliases=aliases,
        architecture=row.architecture,
        run_id=row.run_id,
        cells=tuple(_cell(row, column) for column in COLUMNS),
    )


def _cell(row: Row, column: Figure) -> Cell:
    values = {**row.measures, DEPLOYED: row.certified_deployed_accuracy, **row.costs}
    value, measure = values.get(column.measure), column.measure
    if value is None:
        return Cell()
    difference, interval = row.differences.get(measure), row.intervals.get(measure)
    return Cell(
        text=column.shown(value),
        interval="" if interval is None else interval_text(*interval),
        points=row.points.get(measure) if measure in SAMPLED else None,
        difference="" if difference is None else column.signed(difference.value),
        mark=BEYOND if difference is not None and difference.significant else "",
        kind=_kind(difference),
        over=""
        if difference is None or difference.points == row.points.get(measure)
        else f"n = {difference.points}",
    )


def _kind(difference: Difference | None) -> Literal["same", "better", "worse"]:
    if difference is None or not difference.significant:
        return "same"
    return "better" if difference.value > 0 else "worse"


def _samples(rows: Sequence[Row]) -> list[str]:
    """What the numbers were measured on."""
    sampled, radii, whole = (
        _range([row.points[measure] for row in rows if measure in row.points])
        for measure in ("certified_accuracy", "median_radius", "clean_accuracy")
    )
    which = f"{sampled} sampled test points, with {CONFIDENCE:.0%} {METHOD} intervals, {DRAWN}"
    if sampled == whole:
        which = f"all {whole} test points"
    told = [
        f"certified and deployed: of {which}; deployed: with a margin beyond the rounding of the "
        "float32 model as it is served",
        f"median radius: of {radii} sampled points",
        f"the other accuracies: of all {whole} test points",
    ]
    return [each for each, count in zip(told, (sampled, radii, whole), strict=True) if count]


def _range(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _differences(comparison: Comparison, named: Mapping[str, str]) -> list[str]:
    """What the differences are to, on which points, and when they count."""
    if comparison.champion is None:
        return ["no champion yet: `certiflow promote --version …` makes one"]
    if not any(row.differences for row in comparison.rows):
        return []
    champion = next(
        (
            named[row.run_id]
            for row in comparison.rows
            if row.version == comparison.champion and row.run_id in named
        ),
        comparison.champion,
    )
    lines = [
        f"below each value: the difference to champion {champion}, on the points that "
        f"both looked at; {BEYOND} is beyond sampling error ({MCNEMAR} test, p < "
        f"{comparison.significance:g}; median radius: {1 - comparison.significance:.0%} "
        f"{BOOTSTRAP} interval)"
    ]
    certified = [
        f"{_name(row, named)} on {_which(row.differences['certified_accuracy'])}"
        for row in comparison.rows
        if "certified_accuracy" in row.differences
    ]
    if certified:
        lines.append(f"differences of certified: {', '.join(certified)}; stratified samples")
    return lines


def _which(difference: Difference) -> str:
    if difference.sample == GATE:
        return f"the gate's {difference.points} points"
    return f"the {difference.points} that both runs verified"
