"""A version in service, how it answers, and how another takes its place."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.errors import CertiflowError, first_line
from tasks.core.guard import bundle
from tasks.core.guard.answers import BUDGET, CERTIFICATE, QUEUE, Answer, Decision
from tasks.core.guard.bundle import Bundle
from tasks.core.guard.certificate import Certified
from tasks.core.guard.contract import Contract
from tasks.core.guard.drift import Drift
from tasks.core.guard.escalation import Escalated, Escalation, Question, QueueFullError
from tasks.core.guard.traffic import Arrivals, Clients, SequentialTest
from tasks.core.properties.perturbation import Perturbation
from tasks.core.verdicts import Verdict
from tasks.guarding.settings import DECISIONS, GuardSettings
from tasks.tracking import download_guard_files, version_meant

IN_THE_LOOP = 16  # rows; more are certified in a thread, so that others are not kept waiting


@dataclass(eq=False)
class Served:
    """A version with its certificate, the processes of its proofs, and tests of its traffic.

    What is normal of traffic is so for a version: another one flags clean inputs at its own rate.
    """

    name: str
    number: int
    bundle: Bundle
    settings: GuardSettings
    escalation: Escalation
    perturbation: Perturbation = field(init=False)
    contract: Contract = field(init=False)
    radii: FloatArray = field(init=False)
    arrivals: Arrivals = field(init=False, default_factory=Arrivals)
    clients: Clients = field(init=False)
    everyone: SequentialTest = field(init=False)
    drift: Drift = field(init=False)
    at_epsilon: int = field(init=False)

    def __post_init__(self) -> None:
        self.perturbation = self.bundle.description.perturbation
        self.contract = self.bundle.description.contract
        self.radii = np.array(self.settings.radii)
        rate = self.settings.flag_rate
        if rate is None:
            rate = self.bundle.clean.most_flagged(self.settings.epsilon)
        self.clients = Clients(rate, self.settings.alpha, self.settings.most_clients)
        self.everyone = SequentialTest(rate, self.settings.alpha)
        self.drift = Drift(self.bundle.description.profile, self.perturbation.domain)
        self.at_epsilon = int(np.flatnonzero(self.radii == self.settings.epsilon)[0])

    @classmethod
    def of(cls, words: str, settings: GuardSettings) -> Served:
        """The version that the words mean now, read and warm.

        Raises:
            CertiflowError: there is no such version, or it cannot be guarded.
        """
        version = version_meant(words)
        folder = Path(tempfile.mkdtemp(prefix="certiflow-guard-"))
        try:
            read = bundle.read(download_guard_files(version, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        perturbation = read.description.perturbation
        escalation = Escalation(read.network, perturbation, settings.workers, settings.queue_size)
        try:
            escalation.wait_until_started()
            served = cls(version.model, version.number, read, settings, escalation)
            served.certified(np.zeros((1, *read.description.shape), dtype=np.float32))
        except BaseException:
            escalation.close()
            raise
        return served

    @property
    def title(self) -> str:
        return f"{self.name}/{self.number}"

    def certified(self, inputs: Float32Array) -> Certified:
        """Labels, and what intervals prove at the service's radii."""
        return self.bundle.certificate.certified(inputs, self.radii)

    async def answers(self, inputs: Float32Array, arrived: float) -> list[Answer]:
        """Of valid inputs (n, *shape), at the latest a little after the budget from `arrived`."""
        if len(inputs) <= IN_THE_LOOP:
            certified = self.certified(inputs)
        else:
            certified = await asyncio.to_thread(self.certified, inputs)
        proved = certified.margins[:, self.at_epsilon] > 0
        escalated = await self._escalated(inputs, certified, ~proved, arrived)
        radii = certified.radii(self.radii)
        return [
            self._answer(int(label), float(radius), float(margin), escalated.get(row))
            for row, (label, radius, margin) in enumerate(
                zip(certified.labels, radii, certified.margins[:, self.at_epsilon], strict=True)
            )
        ]

    async def _escalated(
        self, inputs: Float32Array, certified: Certified, is_open: np.ndarray, arrived: float
    ) -> dict[int, Escalated | str]:
        """What the ladder says of the open rows, or why it does not: no time, or no place."""
        found: dict[int, Escalated | str] = {}
        waiting: dict[asyncio.Future[Escalated], int] = {}
        deadline = arrived + self.settings.budget_ms / 1000
        for row in np.flatnonzero(is_open).tolist():
            seconds = deadline - monotonic()
            if seconds <= 0:
                found[row] = BUDGET
                continue
            asked = Question(
                inputs[row], int(certified.labels[row]), self.settings.epsilon, seconds
            )
            try:
                waiting[asyncio.wrap_future(self.escalation.submit(asked))] = row
            except QueueFullError:
                found[row] = QUEUE
        if waiting:
            await asyncio.wait(waiting, timeout=max(deadline - monotonic(), 0))
        for future, row in waiting.items():
            found[row] = _result(future)
        return found

    def _answer(
        self, label: int, radius: float, margin: float, escalated: Escalated | str | None
    ) -> Answer:
        if escalated is None:
            return Answer(label, label, Decision.ACCEPTED, radius, CERTIFICATE, margin)
        policy = DECISIONS[self.settings.policy]
        told = label if policy is Decision.FLAGGED else None
        if isinstance(escalated, str):
            return Answer(told, label, policy, radius, escalated, margin)
        by, least = escalated.decided_by.value, escalated.margin
        if escalated.verdict is Verdict.ROBUST:
            radius = max(radius, self.settings.epsilon)
            least = margin if least is None else least
            return Answer(label, label, Decision.ACCEPTED, radius, by, least)
        return Answer(told, label, policy, radius, by, margin, escalated.counterexample)

    def check_like(self, other: Served) -> None:
        """Raises `CertiflowError` where the other's inputs or classes are not this one's."""
        own, others = self.bundle.description, other.bundle.description
        if (own.shape, own.features, own.class_names) != (
            others.shape,
            others.features,
            others.class_names,
        ):
            raise CertiflowError(
                f"{other.title} takes other inputs, or has other classes, than {self.title}: "
                "expected versions of one dataset"
            )

    def close(self) -> None:
        """Answers what waits, then ends the processes."""
        self.escalation.close()


def _result(future: asyncio.Future[Escalated]) -> Escalated | str:
    """Its result; `budget` where it is late, which gives it up, or where no process can start."""
    if not future.done():
        future.cancel()
        return BUDGET
    return BUDGET if future.exception() is not None else future.result()


class Follower:
    """Looks now and then which version an alias means, and puts that in the place of the last.

    A request keeps the version that it began with. Where the store does not answer, or a new
    version cannot be read, the last one stays, and `trouble` says so.
    """

    def __init__(self, words: str, settings: GuardSettings) -> None:
        """Raises `CertiflowError` as `Served.of`."""
        self._words, self._settings = words, settings
        self.served = Served.of(words, settings)
        self.trouble = ""
        self._retired: list[Served] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"follow {words}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the version's processes, once they have answered."""
        self._stopped.set()
        self._thread.join(self._settings.follow_seconds)
        for served in (self.served, *self._retired):
            served.close()

    def _follow(self) -> None:
        while not self._stopped.wait(self._settings.follow_seconds):
            self._retire()
            try:
                version = version_meant(self._words)
                if (version.model, version.number) != (self.served.name, self.served.number):
                    self._replace(Served.of(self._words, self._settings))
                self.trouble = ""
            except Exception as error:  # whatever it is, the version in service goes on
                self.trouble = first_line(error)

    def _replace(self, newer: Served) -> None:
        """The older one's last requests have until the next look."""
        try:
            self.served.check_like(newer)
        except CertiflowError:
            newer.close()
            raise
        self._retired.append(self.served)
        self.served = newer

    def _retire(self) -> None:
        for served in self._retired:
            served.close()
        self._retired.clear()
