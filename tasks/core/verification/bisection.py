"""Bisection between what is proved and what is broken, with questions that may stay open."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

LEAST_SECONDS = 0.02  # a question with less time is not worth asking
SHARE = 0.5  # of the time that is left, for each question


@dataclass(frozen=True)
class Reply:
    """What a question about a value showed: a proof, a value that is broken, or neither."""

    proved: bool = False
    broken: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Narrowed:
    """The values nearest to each other that are proved and broken, and why they are not nearer."""

    proved: float
    broken: float | None
    reason: str


def narrow(
    ask: Callable[[float, float], Reply],
    proved: float,
    broken: float | None,
    edge: float,
    *,
    tolerance: float,
    deadline: float,
) -> Narrowed:
    """Asks `ask(value, seconds)` until `proved` and `broken` are within `tolerance`.

    A proof at one value holds for all values on the far side of it from `broken`, and a break
    likewise; which of the two is greater does not matter. Attacks are nearly tight, so the first
    question is the one that would settle all: just short of `broken`, or `edge` itself while
    nothing is broken. After that the middle is asked. An open question costs half of the time that
    is left and lowers the aim, not the claim: later ones lie between it and `proved`.
    """
    aim, reason, first = edge if broken is None else broken, "", True
    while True:
        untried_edge = first and broken is None and proved != edge
        if abs(aim - proved) <= tolerance and not untried_edge:
            return Narrowed(proved, broken, reason)
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            return Narrowed(proved, broken, reason or "time limit")
        value = (proved + aim) / 2
        if first:
            value = (
                edge if broken is None else broken + (tolerance if proved > broken else -tolerance)
            )
        first = False
        reply = ask(value, SHARE * left)
        if reply.proved:
            proved = value
        elif reply.broken is not None:
            aim = broken = reply.broken
        else:
            aim, reason = value, reply.reason or "undecided"
