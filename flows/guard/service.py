"""What a request goes through: contract, certificate, ladder, policy, store, comparison."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from time import monotonic, time
from uuid import uuid4

import numpy as np

from flows.guard.keeping import Keeper
from flows.guard.metrics import Metrics
from flows.guard.serving import Follower, Served
from flows.guard.telling import Teller
from tasks.core.arrays import Float32Array, Mask
from tasks.core.guard.answers import Answer, Decision
from tasks.core.guard.contract import Asked
from tasks.core.guard.drift import LABELS, WINDOW
from tasks.core.guard.flagged import Flagged, digest_of
from tasks.core.guard.traffic import Arrival
from tasks.guarding.settings import GuardSettings

RECENT = 24  # flagged inputs, and alarms, that the page shows
ALARM = "more inputs are not accepted than clean ones would be"


class BusyError(Exception):
    """Not now: too many requests are at work, or the client is throttled."""


class BlockedError(Exception):
    """The client is under alarm."""


@dataclass(frozen=True, eq=False)
class Answered:
    """A request's answers, and the version that gave all of them."""

    request: str
    served: Served
    answers: list[Answer]
    completed: Sequence[str]
    digests: list[str]
    milliseconds: float


class Service:
    """The versions in service and all that is counted and kept of their answers."""

    def __init__(self, settings: GuardSettings) -> None:
        """Raises `CertiflowError` as `Follower`, `Keeper` and `Teller.configured` do."""
        self.settings, self.metrics = settings, Metrics(settings.radii)
        self.recent: deque[Flagged] = deque(maxlen=RECENT)
        self.at_work, self.started = 0, time()
        self.alarms: deque[str] = deque(maxlen=RECENT)
        self._ends = ExitStack()
        with ExitStack() as ends:
            self.main = ends.enter_context(closing(self._follower(settings.model)))
            self.others = {
                role: ends.enter_context(closing(self._follower(words)))
                for role, words in (
                    ("fall_back", settings.fall_back),
                    ("shadow", settings.shadow),
                    ("canary", settings.canary),
                )
                if words is not None
            }
            for other in self.others.values():
                self.main.served.check_like(other.served)
            self.keeper: Keeper | None = None
            if settings.store is not None:
                self.keeper = ends.enter_context(closing(Keeper(settings, self.metrics)))
            self.teller = Teller.configured()
            if self.teller is not None:
                ends.enter_context(closing(self.teller))
            self._ends = ends.pop_all()

    def close(self) -> None:
        """Tells and stores what waits, and ends all processes."""
        self._ends.close()

    @property
    def troubles(self) -> list[str]:
        """What does not work and does not keep answers from being given."""
        parts = (self.main, *self.others.values(), self.keeper, self.teller)
        return [part.trouble for part in parts if part is not None and part.trouble]

    def served_for(self, client: str) -> Served:
        """The version in service, or for a share of the clients, always the same, the canary."""
        canary = self.others.get("canary")
        if canary is None or zlib.crc32(client.encode()) / 2**32 >= self.settings.canary_share:
            return self.main.served
        return canary.served

    async def answer(self, served: Served, asked: Asked, client: str, arrived: float) -> Answered:
        """Answers to valid inputs, counted, and kept where they are not accepted.

        Raises:
            BusyError: too many requests are at work, or this client's are throttled.
            BlockedError: this client is blocked.
        """
        if self.settings.action != "alarm" and served.clients.is_alarmed(client):
            if self.settings.action == "block":
                raise BlockedError
            raise BusyError(f"this client is throttled, since {ALARM}")
        if self.at_work >= self.settings.most_requests:
            raise BusyError(f"{self.at_work} requests are at work")
        inputs, flags = asked.inputs, None
        self.at_work += 1
        arrival = served.arrivals.begin(client)
        try:
            answers = await served.answers(inputs, arrived)
            flags = np.array([each.decision is not Decision.ACCEPTED for each in answers])
        finally:
            self.at_work -= 1
            self._watch(served, arrival, flags)
        answers = self._with_policy(answers, inputs)
        seconds = monotonic() - arrived
        request = uuid4().hex
        digests = [digest_of(point) for point in inputs]
        self.metrics.answered(answers, served.title, seconds)
        self.metrics.waiting.set(served.escalation.num_waiting)
        for point, digest, answer in zip(inputs, digests, answers, strict=True):
            if answer.decision is not Decision.ACCEPTED:
                self._keep(
                    Flagged(
                        digest,
                        time(),
                        request,
                        client,
                        served.title,
                        self.settings.epsilon,
                        answer,
                        point,
                    )
                )
        self._watch_drift(served, inputs, answers)
        self._compare(served, inputs, answers)
        return Answered(request, served, answers, asked.completed, digests, 1000 * seconds)

    def _follower(self, words: str) -> Follower:
        return Follower(words, self.settings)

    def _with_policy(self, answers: list[Answer], inputs: Float32Array) -> list[Answer]:
        """With the label of the version to fall back to, where that is the policy."""
        fall_back = self.others.get("fall_back")
        is_open = [row for row, each in enumerate(answers) if each.decision is Decision.FELL_BACK]
        if fall_back is not None and is_open:
            labels = fall_back.served.certified(inputs[is_open]).labels
            for row, label in zip(is_open, labels.tolist(), strict=True):
                # What is proved is of this version's own label, and of no other.
                answers[row] = replace(answers[row], label=label, certified_radius=0.0)
        return answers

    def _watch(self, served: Served, arrival: Arrival, flags: Mask | None) -> None:
        """Alarms about the client, or about all of the traffic."""
        own, everyones = served.arrivals.end(arrival, flags)
        for each in own:
            if served.clients.observe(arrival.client, each).is_new_alarm:
                self._alarm(served, "client", f"client {arrival.client}: {ALARM}")
        for each in everyones:
            was_alarmed = served.everyone.is_alarmed
            if served.everyone.observe(each) and not was_alarmed:
                self._alarm(served, "flag rate", f"all traffic: {ALARM}")

    def _watch_drift(self, served: Served, inputs: Float32Array, answers: Sequence[Answer]) -> None:
        """Alarms where inputs or labels are no longer like the test set's."""
        labels = np.array([each.served for each in answers])
        for name in served.drift.observe(inputs, labels):
            self._alarm(
                served,
                "labels" if name == LABELS else "inputs",
                f"{name}: shifted from the test set, index {served.drift.indices[name]:.2f} over "
                f"{WINDOW} inputs",
            )

    def _alarm(self, served: Served, cause: str, said: str) -> None:
        """Counts and shows it, and tells Prefect of it."""
        self.metrics.alarms.labels(cause).inc()
        self.alarms.append(said)
        if self.teller is not None:
            self.teller.tell(served.name, served.number, cause, said)

    def _keep(self, flagged: Flagged) -> None:
        self.recent.append(flagged)
        if self.keeper is not None:
            self.keeper.keep(flagged)

    def _compare(self, served: Served, inputs: Float32Array, answers: Sequence[Answer]) -> None:
        """Has the shadow certify the same inputs, once the answer is on its way."""
        shadow = self.others.get("shadow")
        if shadow is not None:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._count_shadow, shadow.served, inputs, answers)

    def _count_shadow(
        self, shadow: Served, inputs: Float32Array, answers: Sequence[Answer]
    ) -> None:
        certified = shadow.certified(inputs)
        accepted = certified.margins[:, shadow.at_epsilon] > 0
        for answer, label, held in zip(answers, certified.labels, accepted, strict=True):
            same_label = answer.label in {None, int(label)}
            same = "same" if same_label else "label"
            if same_label and held != (answer.decision is Decision.ACCEPTED):
                same = "decision"
            self.metrics.compared.labels("shadow", shadow.title, same).inc()
