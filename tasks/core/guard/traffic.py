"""Attackers seen by their traffic: a client is flagged more often than clean inputs are.

Where labels are accepted they are constant within epsilon, so every way from one accepted label to
another crosses inputs that are not accepted: whoever searches for a boundary is flagged on it. That
is so where inputs are real numbers that can change; whole numbers, categories and features that
nobody can change may step over. The test holds for any traffic.

Requests are looked at in the order in which they arrived. What is not accepted takes longest, so in
the order of the answers a clean client that sends many at once would end with a row of flags.

The test bets against "each input is flagged with probability at most p0, given the past". Betting
on a rate q > p0 multiplies the wealth by q / p0 where an input is flagged and by (1 - q) / (1 - p0)
where it is not. The expected factor p q / p0 + (1 - p) (1 - q) / (1 - p0) grows with p and is 1 at
p0: at most 1 under the hypothesis, so the wealth is a supermartingale, and by Ville's inequality it
ever reaches 1 / alpha with probability at most alpha (Waudby-Smith and Ramdas 2024, "Estimating
means of bounded random variables by betting"). Nobody knows q, or when an attack begins: the wealth
is spread over several rates and, in shares 1 / (t (t + 1)) that sum to 1, over all beginnings t
(what has not begun is kept, factor 1), which is a supermartingale again. So an attacker gains
nothing from good behaviour before but log(t (t + 1)).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import Mask

BETS = 6  # rates between p0 and 1 that the wealth is spread over
LEAST_RATE, MOST_RATE = 1e-3, 1 - 1e-9  # of p0: one flag is no alarm; a bet divides by 1 - p0


class SequentialTest:
    """Of inputs as they come; constant memory, no end."""

    def __init__(self, null_rate: float, alpha: float) -> None:
        """`null_rate` is p0."""
        null = min(max(null_rate, LEAST_RATE), MOST_RATE)
        rates = null + (1 - null) * (np.arange(BETS) + 0.5) / BETS
        self._flagged = np.log(rates) - np.log(null)
        self._passed = np.log1p(-rates) - np.log1p(-null)
        self._threshold = -np.log(alpha)
        self._begun = np.full(BETS, -np.inf)  # the logarithm of what each bet has made so far
        self._times = 0
        self.queries = self.flags = 0
        self.is_alarmed = False

    @property
    def log_wealth(self) -> float:
        """The logarithm of the wealth, which began at 1."""
        kept = -np.log1p(self._times)
        return float(np.logaddexp.reduce([*(self._begun - np.log(BETS)), kept]))

    def observe(self, flags: Mask) -> bool:
        """The inputs of one request, of which bets begin before the first; whether to alarm.

        An alarm stays.
        """
        count, flagged = len(flags), int(np.sum(flags))
        self._times += 1
        share = -np.log(self._times) - np.log1p(self._times)
        made = flagged * self._flagged + (count - flagged) * self._passed
        self._begun = np.logaddexp(self._begun, share) + made
        self.queries += count
        self.flags += flagged
        self.is_alarmed = self.is_alarmed or self.log_wealth >= self._threshold
        return self.is_alarmed


@dataclass(frozen=True)
class Standing:
    """Of a client, after its last request."""

    is_alarmed: bool
    is_new_alarm: bool
    queries: int
    flags: int


class Clients:
    """A test for each client, of at most so many.

    The least recently seen is forgotten first, an alarmed one only where all are: a name that is
    forgotten begins anew, with a chance alpha of its own.
    """

    def __init__(self, null_rate: float, alpha: float, capacity: int) -> None:
        self._null_rate, self._alpha, self._capacity = null_rate, alpha, capacity
        self._tests: OrderedDict[str, SequentialTest] = OrderedDict()
        self._alarmed: OrderedDict[str, SequentialTest] = OrderedDict()

    def is_alarmed(self, client: str) -> bool:
        """Without its next request being looked at."""
        return client in self._alarmed

    @property
    def num_alarmed(self) -> int:
        return len(self._alarmed)

    def observe(self, client: str, flags: Mask) -> Standing:
        """The inputs of a client's request."""
        before = client in self._alarmed
        tests = self._alarmed if before else self._tests
        test = tests.pop(client, None) or SequentialTest(self._null_rate, self._alpha)
        alarmed = test.observe(flags)
        tests = self._alarmed if alarmed else self._tests
        tests[client] = test
        while len(self._tests) + len(self._alarmed) > self._capacity:
            (self._tests or self._alarmed).popitem(last=False)
        return Standing(alarmed, alarmed and not before, test.queries, test.flags)


@dataclass(eq=False)
class Arrival:
    """A request from its arrival on; `flags` once it is answered, None where it never is."""

    client: str
    flags: Mask | None = None
    is_over: bool = False


class Arrivals:
    """Requests at work, whose outcomes are told in the order in which they arrived."""

    def __init__(self) -> None:
        self._all: deque[Arrival] = deque()
        self._of: dict[str, deque[Arrival]] = {}

    def begin(self, client: str) -> Arrival:
        """A request that has arrived."""
        arrival = Arrival(client)
        self._all.append(arrival)
        self._of.setdefault(client, deque()).append(arrival)
        return arrival

    def end(self, arrival: Arrival, flags: Mask | None) -> tuple[list[Mask], list[Mask]]:
        """Outcomes that nothing before them waits for any more: of the client, and of everyone."""
        arrival.flags, arrival.is_over = flags, True
        own = self._of[arrival.client]
        told = _over(own)
        if not own:
            del self._of[arrival.client]
        return told, _over(self._all)


def _over(waiting: deque[Arrival]) -> list[Mask]:
    found = []
    while waiting and waiting[0].is_over:
        flags = waiting.popleft().flags
        if flags is not None:
            found.append(flags)
    return found
