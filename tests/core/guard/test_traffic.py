"""Attackers are seen soon; who is flagged like clean traffic, with probability alpha at most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tasks.core.guard.traffic import LEAST_RATE, MOST_RATE, Arrivals, Clients, SequentialTest


@pytest.mark.parametrize("null", [0.0, 0.001, 0.03, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_expected_wealth_is_at_most_one(null: float, share: float) -> None:
    """Over all sequences of seven requests, for rates up to the null rate."""
    rate, expected = share * min(max(null, LEAST_RATE), MOST_RATE), 0.0
    for sequence in itertools.product([False, True], repeat=7):
        test = SequentialTest(null, 0.5)
        for flag in sequence:
            test.observe(np.array([flag]))
        flags = sum(sequence)
        expected += np.exp(test.log_wealth) * rate**flags * (1 - rate) ** (7 - flags)
    assert expected <= 1 + 1e-12
    if share == 1.0:
        assert expected == pytest.approx(1)  # nothing is given away


def alarm_at(generator: np.random.Generator, null: float, rates: np.ndarray) -> int | None:
    test = SequentialTest(null, 1e-6)
    flags = generator.random(len(rates)) < rates
    return next((number for number, flag in enumerate(flags, 1) if test.observe(flag[None])), None)


def test_clean_clients_are_not_alarmed_about() -> None:
    """At alpha 1e-2 about 1 of 100 may be; a simulation of 2,000 stays within four sigma."""
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        test = SequentialTest(0.03, 1e-2)
        alarms += any(test.observe(flag[None]) for flag in generator.random(300) < 0.03)
    assert alarms <= 2000 * 1e-2 + 4 * np.sqrt(2000 * 1e-2)


def test_an_attacker_is_seen_soon() -> None:
    generator = np.random.default_rng(1)
    half = [alarm_at(generator, 0.03, np.full(200, 0.5)) for _ in range(200)]
    assert None not in half
    assert np.median([each for each in half if each]) <= 25
    diluted = [alarm_at(generator, 0.03, np.full(1000, 0.15)) for _ in range(50)]
    assert None not in diluted


def test_good_behaviour_before_hides_nothing() -> None:
    generator = np.random.default_rng(2)
    rates = np.concatenate([np.full(5000, 0.03), np.full(200, 0.5)])
    found = [alarm_at(generator, 0.03, rates) for _ in range(20)]
    assert all(each is not None and 5000 < each <= 5100 for each in found)


def test_a_request_of_many_inputs_counts_as_many() -> None:
    generator = np.random.default_rng(3)
    test = SequentialTest(0.03, 1e-6)
    assert not test.observe(generator.random(1000) < 0.03)
    assert test.observe(generator.random(1000) < 0.2)
    assert (test.queries, test.is_alarmed) == (2000, True)


def test_it_goes_on_for_ever() -> None:
    test = SequentialTest(0.03, 1e-6)
    for _ in range(1000):
        test.observe(np.zeros(10_000, dtype=bool))
    assert np.isfinite(test.log_wealth)
    assert -10 < test.log_wealth < 0
    for _ in range(10):
        test.observe(np.ones(10_000, dtype=bool))
    assert test.is_alarmed


def test_of_a_rate_of_one_nothing_can_be_told() -> None:
    assert not SequentialTest(1.0, 1e-6).observe(np.ones(1000, dtype=bool))


def test_clients_are_forgotten_and_alarms_last() -> None:
    clients = Clients(0.03, 1e-6, capacity=3)
    flagged = np.ones(50, dtype=bool)
    first = clients.observe("attacker", flagged)
    again = clients.observe("attacker", ~flagged)
    assert (first.is_new_alarm, again.is_new_alarm, again.is_alarmed) == (True, False, True)
    for number in range(10):
        assert not clients.observe(f"client {number}", ~flagged).is_alarmed
    assert clients.is_alarmed("attacker")
    assert clients.observe("client 9", ~flagged).queries == 100
    assert clients.observe("client 0", ~flagged).queries == 50
    for number in range(5):
        clients.observe(f"other attacker {number}", flagged)
    assert clients.num_alarmed <= 3


def test_answers_that_come_late_alarm_about_nobody() -> None:
    """A clean client sends many at once, and what is flagged is answered last."""
    flags = np.random.default_rng(0).random(1000) < 0.06
    by_answers, by_arrivals = Clients(0.08, 1e-6, 10), Clients(0.08, 1e-6, 10)
    arrivals = Arrivals()
    begun = [arrivals.begin("client") for _ in flags]
    for place in np.argsort(flags, kind="stable"):
        by_answers.observe("client", flags[place : place + 1])
        own, everyones = arrivals.end(begun[place], flags[place : place + 1])
        assert [each.tolist() for each in own] == [each.tolist() for each in everyones]
        for each in own:
            standing = by_arrivals.observe("client", each)
    assert by_answers.is_alarmed("client")  # 60 flags in a row at the end
    assert not by_arrivals.is_alarmed("client")
    assert (standing.queries, standing.flags) == (1000, flags.sum())


def test_outcomes_are_told_in_the_order_of_arrival_of_each_and_of_all() -> None:
    """One that is never answered holds up nobody."""
    arrivals = Arrivals()
    first, other, second, third = (arrivals.begin(name) for name in "abaa")
    yes, no = np.array([True]), np.array([False])
    assert arrivals.end(second, yes) == ([], [])
    assert arrivals.end(other, no) == ([no], [])
    assert arrivals.end(first, None) == ([yes], [no, yes])
    assert arrivals.end(third, no) == ([no], [no])
    assert arrivals.end(arrivals.begin("a"), yes) == ([yes], [yes])
