"""Traffic that is no longer like the test set: what of it is accepted, and when it is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from tasks.core.arrays import Inputs, IntArray, Mask
from tasks.core.data.datasets import Dataset
from tasks.core.guard.bundle import Bundle
from tasks.core.guard.drift import WINDOW, Drift, Profile
from tasks.core.guard.traffic import SequentialTest
from tasks.core.properties.domain import Domain

STREAMS = 10  # of each shift, from a clean start of up to a window
LONGEST = 20_000  # inputs after the shift
CLEAN = 100_000  # inputs in which an alarm is a false one
ALPHA = 1e-6
AT_ONCE = 10  # inputs in a request


def strangers(domain: Domain, inputs: Inputs, seed: int) -> dict[str, Inputs]:
    """Inputs that are not of the training's kind, by what they are; none that is invalid."""
    generator = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    if domain.is_table:
        columns = inputs.copy()
        for column in columns.T:
            generator.shuffle(column)  # each feature as it is, none with another
        made["features of different rows"] = columns[domain.contains(columns)]
    else:
        noisy = inputs + generator.normal(0, 0.3, inputs.shape)
        made = {
            "uniform noise": generator.random(inputs.shape),
            "with Gaussian noise": np.clip(noisy, 0, 1),
            "rotated by 90 degrees": np.rot90(inputs, axes=(1, 2)),
            "upside down": np.rot90(inputs, 2, axes=(1, 2)),
            "inverted": 1 - inputs,
            "blurred": ndimage.gaussian_filter(inputs, (0, 2, 2, *[0] * (inputs.ndim - 3))),
        }
    return {name: each.astype(np.float32) for name, each in made.items() if len(each)}


@dataclass(frozen=True, eq=False)
class Traffic:
    """Inputs that are drawn from, the labels served, and which are not accepted by intervals."""

    inputs: Inputs
    labels: IntArray
    flags: Mask

    @classmethod
    def of(cls, read: Bundle, inputs: Inputs, epsilon: float) -> Traffic:
        """As the guard takes them."""
        found = read.certificate.certified(inputs, [epsilon])
        return cls(inputs, found.labels, found.margins[:, 0] <= 0)

    def chosen(self, rows: Mask | IntArray) -> Traffic:
        return Traffic(self.inputs[rows], self.labels[rows], self.flags[rows])

    def requests(self, count: int, generator: np.random.Generator) -> Iterator[Traffic]:
        """So many inputs, drawn with replacement."""
        for start in range(0, count, AT_ONCE):
            size = min(AT_ONCE, count - start)
            yield self.chosen(generator.integers(len(self.inputs), size=size))


@dataclass(frozen=True, eq=False)
class Watch:
    """What a guard sees shifts by: the test of all flags, windows of inputs and labels."""

    profile: Profile
    domain: Domain
    flag_rate: float

    def delay(self, before: Traffic, after: Traffic, generator: np.random.Generator) -> int | None:
        """Inputs from a shift to the first alarm; None where there is none."""
        test, drift = SequentialTest(self.flag_rate, ALPHA), Drift(self.profile, self.domain)
        for part in before.requests(int(generator.integers(WINDOW)), generator):
            self._alarmed(test, drift, part)
        for number, part in enumerate(after.requests(LONGEST, generator), start=1):
            if self._alarmed(test, drift, part):
                return number * AT_ONCE
        return None

    def alarms(self, traffic: Traffic, generator: np.random.Generator) -> int:
        """In `CLEAN` inputs."""
        test, drift = SequentialTest(self.flag_rate, ALPHA), Drift(self.profile, self.domain)
        requests = traffic.requests(CLEAN, generator)
        shifted = sum(len(drift.observe(each.inputs, each.labels)) for each in requests)
        requests = traffic.requests(CLEAN, generator)
        return shifted + int(any(test.observe(each.flags) for each in requests))

    @staticmethod
    def _alarmed(test: SequentialTest, drift: Drift, part: Traffic) -> bool:
        return test.observe(part.flags) | bool(drift.observe(part.inputs, part.labels))


def drift_delays(read: Bundle, data: Dataset, epsilon: float, seed: int) -> list[dict[str, Any]]:
    """Of each shift, after how many inputs the guard alarms: the median, and how often it does.

    The first row is clean traffic: the alarms in it are false.
    """
    generator = np.random.default_rng(seed)
    clean = Traffic.of(read, data.test_inputs, epsilon)
    watch = Watch(read.description.profile, data.domain, read.clean.most_flagged(epsilon))
    rows: list[dict[str, Any]] = [
        {"shift": "none", "streams": 1, "alarms": watch.alarms(clean, generator), "delay": None}
    ]

    def told(shift: str, watch: Watch, before: Traffic, after: Traffic) -> None:
        found = [watch.delay(before, after, generator) for _ in range(STREAMS)]
        seen = [each for each in found if each is not None]
        delay = float(np.median(seen)) if seen else None
        rows.append({"shift": shift, "streams": STREAMS, "alarms": len(seen), "delay": delay})

    for shift, changed in _changes(data.domain).items():
        told(shift, watch, clean, Traffic.of(read, changed(data.test_inputs), epsilon))
    most = int(np.argmax(np.bincount(clean.labels)))
    half = np.flatnonzero(clean.labels == most)
    others = generator.choice(np.flatnonzero(clean.labels != most), size=len(half))
    mixed = clean.chosen(np.concatenate([half, others]))
    told(f"half of it {data.class_names[most]}", watch, clean, mixed)
    if data.num_classes > 2:
        told(f"{data.class_names[-1]} is new", *_new_class(read, data, clean, watch))
    return rows


def _changes(domain: Domain) -> dict[str, Callable[[Inputs], Inputs]]:
    """Of all inputs."""
    if domain.is_table:
        real = ~domain.whole & np.isfinite(domain.upper - domain.lower)
        step = np.where(real, 0.1 * (domain.upper - domain.lower), 0).astype(np.float32)

        def moved(inputs: Inputs) -> Inputs:
            upper = domain.upper.astype(np.float32)
            return np.where(step > 0, np.minimum(inputs + step, upper), inputs)

        return {"real numbers a tenth of their range higher": moved} if real.any() else {}

    def turned(inputs: Inputs) -> Inputs:
        """One in five."""
        some = inputs.copy()
        some[::5] = np.rot90(inputs[::5], axes=(1, 2))
        return some

    return {
        "brightness 80%": lambda inputs: np.float32(0.8) * inputs,
        "brightness 50%": lambda inputs: np.float32(0.5) * inputs,
        "a fifth turned by 90 degrees": turned,
    }


def _new_class(
    read: Bundle, data: Dataset, clean: Traffic, watch: Watch
) -> tuple[Watch, Traffic, Traffic]:
    """The last class comes to a model of the others, which gives it the likeliest of their labels.

    Flags stay those of the whole model.
    """
    last = data.num_classes - 1
    logits = read.certificate.certified(data.test_inputs, [0.0]).logits
    after = Traffic(clean.inputs, logits[:, :last].argmax(axis=1), clean.flags)
    before = after.chosen(data.test_labels != last)
    profile = Profile.of(data.domain, before.inputs, before.labels, data.num_classes)
    return Watch(profile, watch.domain, watch.flag_rate), before, after
