"""Descriptions of models and versions: what fits into MLflow's column of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DESCRIPTION_LENGTH = 5000  # characters; SQLite takes more, PostgreSQL refuses
TOLD_PREFIX = "decision."  # of a version's tags that tell its decisions, by number, the first 1
DECISIONS = "\n\n## Decisions\n"  # between a version's own description and what was decided
GUARD = "\n\n## Guard\n"  # before what was found of its guard, ahead of the decisions
LAST = 3  # so many decisions are in the description
PARAGRAPH_LENGTH = 1200  # of each: three leave room for the version's own words
SHORTENED = "\n\n(shortened)"


def shortened(text: str, length: int = DESCRIPTION_LENGTH) -> str:
    """The text, cut where it is longer than so many characters."""
    return text if len(text) <= length else f"{text[: length - len(SHORTENED)]}{SHORTENED}"


def told_decisions(tags: Mapping[str, str]) -> list[str]:
    """A version's decisions in words, the oldest first."""
    numbers = [key.removeprefix(TOLD_PREFIX) for key in tags if key.startswith(TOLD_PREFIX)]
    return [tags[f"{TOLD_PREFIX}{n}"] for n in sorted(int(n) for n in numbers if n.isdigit())]


def with_decisions(own: str, decisions: Sequence[str]) -> str:
    """A version's description with its last decisions, which stay whole where the own do not."""
    last = [shortened(paragraph, PARAGRAPH_LENGTH) for paragraph in decisions[-LAST:]]
    ending = DECISIONS + "\n" + "\n\n".join(last)
    return shortened(own.strip(), DESCRIPTION_LENGTH - len(ending)) + ending


def with_guard(description: str, told: str) -> str:
    """A version's description with what was found of its guard, which replaces an earlier one."""
    own, heading, decisions = description.partition(DECISIONS)
    own = own.partition(GUARD)[0].strip()
    kept = f"{GUARD}\n{told}"
    ending = f"{heading}{decisions}"
    return shortened(own, DESCRIPTION_LENGTH - len(kept) - len(ending)) + kept + ending
