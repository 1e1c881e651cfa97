"""What people see of a service: the live page, and the list of its addresses."""

from __future__ import annotations

from collections import Counter
from html import escape
from importlib.resources import files
from time import time
from typing import Any

from flows.guard.service import Service
from tasks.core.guard.flagged import Flagged
from tasks.core.properties.domain import Domain

STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}"


def live_page() -> str:
    """Static; it asks `/live` every two seconds."""
    return files("flows.guard").joinpath("page.html").read_text(encoding="utf-8")


def live(service: Service) -> dict[str, Any]:
    """Totals since the start, and the last inputs that were not accepted."""
    decisions, stages = Counter[str](), Counter[str]()
    for family in service.metrics.answers.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                decisions[sample.labels["decision"]] += int(sample.value)
                stages[sample.labels["decided_by"]] += int(sample.value)
    served, settings = service.main.served, service.settings
    domain = served.perturbation.domain
    names = served.bundle.description.class_names
    return {
        "model": served.title,
        "dataset": served.bundle.description.name,
        "epsilon": settings.epsilon,
        "unit": served.perturbation.unit,
        "policy": settings.policy,
        "uptime": time() - service.started,
        "decisions": decisions,
        "stages": stages,
        "seconds": _buckets(service.metrics.seconds),
        "radii": _buckets(service.metrics.radius),
        "troubles": service.troubles,
        "alarms": list(service.alarms)[::-1],
        "flagged": [_told(each, domain, names) for each in reversed(service.recent)],
    }


def _buckets(histogram: Any) -> list[tuple[str, int]]:
    """How many were up to each bound, and above the one before."""
    (family,) = histogram.collect()
    counts = [
        (sample.labels["le"], int(sample.value))
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]
    before = [0, *(count for _, count in counts)]
    return [(bound, count - less) for (bound, count), less in zip(counts, before, strict=False)]


def _told(flagged: Flagged, domain: Domain, names: tuple[str, ...]) -> dict[str, Any]:
    """A flagged input as a picture or in words, and what a small change would do."""
    answer, point, other = flagged.answer, flagged.point, flagged.answer.counterexample
    told: dict[str, Any] = {
        "digest": flagged.digest[:12],
        "seconds_ago": time() - flagged.received,
        "class": None if answer.label is None else names[answer.label],
        "decision": answer.decision.value,
        "decided_by": answer.decided_by,
        "certified_radius": answer.certified_radius,
    }
    if domain.is_table:
        told["features"] = domain.decoded(point)
        told["moves"] = [] if other is None else domain.moves(point, other)
    else:
        told["shape"] = point.shape
        told["image"] = [round(value, 3) for value in point.ravel().tolist()]
        told["other"] = None if other is None else [round(v, 3) for v in other.ravel().tolist()]
    return told


def documents(openapi: dict[str, Any]) -> str:
    """The addresses, from the OpenAPI description; no external resources."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(said.get('summary', ''))}</td></tr>"
        for path, methods in openapi["paths"].items()
        for method, said in methods.items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>certiflow guard</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}"
        "td{padding:.2rem .8rem .2rem 0;vertical-align:top}div{overflow-x:auto}</style>"
        f"<h1>certiflow guard</h1><p>Described in <a href=openapi.json>openapi.json</a>; requests "
        f"are JSON.</p><div><table>{rows}</table></div>"
    )
