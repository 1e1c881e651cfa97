"""How a decision on a champion is taken and recorded: what every way to one has in common."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from tasks.core.errors import CertiflowError
from tasks.presentation import descriptions
from tasks.presentation.records import Decision, Word
from tasks.tracking import NEVER_PREDICTED, RegisteredModel, Version, local_store_locked

DECIDING_SECONDS = 120
NO_CHAMPION = "no champion to compare with"


def force(name: str, version: int, reason: str) -> Decision:
    """Makes the version champion on a person's word, whatever the gate would say."""
    model = RegisteredModel(name)
    chosen = model.version(version)
    with deciding(model):
        before = check_not_champion(model, chosen)
        model.crown(chosen)
        return recorded(model, said(name, version, "forced", reason, before))


def roll_back(name: str, reason: str) -> tuple[Decision, Decision]:
    """Makes the champion before the present one the champion again: what is said of both.

    Raises:
        CertiflowError: there is no champion, or none before it.
    """
    model = RegisteredModel(name)
    with deciding(model):
        champion, previous = model.champion(), model.previous_champion()
        if champion is None:
            raise CertiflowError(
                f"{name} has no champion yet: there is nothing to roll back; "
                "`certiflow promote` makes one"
            )
        if previous is None:
            raise CertiflowError(f"{champion} is the first champion: there is none before it")
        model.roll_back(model.version(previous))
        taken = recorded(model, said(name, champion.number, "rolled back", reason, previous))
        restored = said(name, previous, "restored", reason, champion.number)
        return taken, recorded(model, restored)


def is_first(model: RegisteredModel) -> bool:
    """Whether the model has one version, and no champion yet."""
    return model.champion_number() is None and len(model.versions()) == 1


def crown_first(name: str, version: int, evidence: str | None = None) -> Decision | None:
    """Makes the version champion if it is the model's only one; None when it is not.

    A later version is never crowned without the gate or a person's word, champion or not; nor is
    one that never predicts some class.
    """
    model = RegisteredModel(name)
    with deciding(model):
        if not is_first(model):
            return None
        first = model.version(version)
        if NEVER_PREDICTED in first.tags:
            return None
        model.crown(first)
        decision = said(name, version, "promoted", NO_CHAMPION, None, evidence=evidence)
        return recorded(model, decision)


def check_not_champion(model: RegisteredModel, version: Version) -> int | None:
    """The champion's number, if any; raises `CertiflowError` when it is the version's."""
    champion = model.champion_number()
    if champion == version.number:
        raise CertiflowError(f"{version} is the champion already")
    return champion


def said(
    model: str,
    version: int,
    word: Word,
    reason: str,
    against: int | None,
    numbers: Mapping[str, int | float | None] | None = None,
    evidence: str | None = None,
) -> Decision:
    """The decision as of now, by this user; numbers that are None are left out."""
    return Decision(
        model=model,
        version=version,
        decision=word,
        reason=reason,
        against=against,
        numbers={key: value for key, value in (numbers or {}).items() if value is not None},
        evidence=evidence,
        by=getpass.getuser(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def recorded(model: RegisteredModel, decision: Decision) -> Decision:
    """Writes it to the version's tags and description and to the model's; returns it."""
    version = model.version(decision.version)
    model.annotate(version, decision.tags, descriptions.of_decision(decision))
    model.describe(descriptions.of_model(model.champion_number(), decision))
    return decision


@contextmanager
def deciding(model: RegisteredModel) -> Iterator[None]:
    """One process at a time: by a lock beside a local store, else by a limit of Prefect's server.

    The limit's slot is a lease, which ends by itself when the flow that holds it dies.
    """
    with local_store_locked(model.name) as locked:
        if locked:
            yield
            return
    from prefect import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists

    limit = f"deciding on {model.name}"
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=limit, limit=1))
    try:
        with concurrency(limit, timeout_seconds=DECIDING_SECONDS, strict=True):
            yield
    except TimeoutError as error:
        raise CertiflowError(
            f"{model.name}: another flow has been deciding on its champion for "
            f"{DECIDING_SECONDS} s; wait for it, or end it"
        ) from error
