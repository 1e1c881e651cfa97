"""What Prometheus reads: requests by decision, stage and version; times, radii, queues, alarms."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tasks.core.guard.answers import Answer

PREFIX = "certiflow_guard"
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """One registry for a service, so that two in a process do not meet."""

    def __init__(self, radii: Sequence[float]) -> None:
        self.registry = registry = CollectorRegistry()
        self.answers = Counter(
            f"{PREFIX}_answers",
            "Inputs answered.",
            ["decision", "decided_by", "version"],
            registry=registry,
        )
        self.refused = Counter(
            f"{PREFIX}_refused", "Requests refused, by status.", ["status"], registry=registry
        )
        self.seconds = Histogram(
            f"{PREFIX}_seconds",
            "From a request's arrival to its answer.",
            buckets=SECONDS,
            registry=registry,
        )
        self.radius = Histogram(
            f"{PREFIX}_certified_radius",
            "Of inputs answered.",
            buckets=(0.0, *radii),
            registry=registry,
        )
        self.waiting = Gauge(
            f"{PREFIX}_escalations_waiting", "Inputs that wait for the ladder.", registry=registry
        )
        self.stored = Counter(
            f"{PREFIX}_stored", "Inputs stored that were not accepted.", registry=registry
        )
        self.not_stored = Counter(
            f"{PREFIX}_not_stored",
            "Inputs that were to be stored, and could not be.",
            ["why"],
            registry=registry,
        )
        self.alarms = Counter(
            f"{PREFIX}_alarms", "Alarms, by what raised them.", ["cause"], registry=registry
        )
        self.compared = Counter(
            f"{PREFIX}_compared",
            "Inputs that another version answered too.",
            ["role", "version", "same"],
            registry=registry,
        )

    def answered(self, answers: Sequence[Answer], version: str, seconds: float) -> None:
        """Counts a request's answers."""
        self.seconds.observe(seconds)
        for answer in answers:
            self.answers.labels(answer.decision.value, answer.decided_by, version).inc()
            self.radius.observe(answer.certified_radius)
