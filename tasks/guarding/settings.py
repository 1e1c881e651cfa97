"""The settings of a guarded service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.core.guard.answers import Decision, graded

Policy = Literal["flag", "abstain", "fall_back", "queue"]
DECISIONS: dict[Policy, Decision] = {
    "flag": Decision.FLAGGED,
    "abstain": Decision.ABSTAINED,
    "fall_back": Decision.FELL_BACK,
    "queue": Decision.QUEUED,
}
Share = Annotated[float, Field(ge=0, le=1)]


class GuardSettings(BaseModel):
    """What is served, how, and what becomes of what is not proved.

    Attributes:
        model: `models:/name@alias`, which is followed, or `models:/name/version`.
        epsilon: an accepted label is proved within it.
        budget_ms: for what the interval certificate leaves open, from the request's arrival.
        policy: for what is not accepted.
        fall_back: the version whose label is told with the policy `fall_back`.
        shadow: a version that answers too, unseen, to be compared.
        canary, canary_share: a version that serves that share of the clients.
        client_header: names the client of a request, where a proxy says so; else its address.
        alpha: the chance that a client within the clean flag rate is ever alarmed about.
        flag_rate: of clean inputs, at most; by default what intervals leave open of the test set.
        most_clients: as many are remembered.
        action: what becomes of the requests of a client under alarm.
        store: of what was not accepted; a path, or an SQLAlchemy URL of a database.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    model: str = "models:/certiflow-mnist@champion"
    epsilon: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    budget_ms: Annotated[float, Field(ge=0, le=60_000)] = 50.0
    policy: Policy = "flag"
    fall_back: str | None = None
    shadow: str | None = None
    canary: str | None = None
    canary_share: Share = 0.0
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    queue_size: Annotated[int, Field(ge=1)] = 64
    most_requests: Annotated[int, Field(ge=1)] = 512
    most_rows: Annotated[int, Field(ge=1)] = 4096
    most_bytes: Annotated[int, Field(ge=1)] = 32 * 2**20
    request_seconds: Annotated[float, Field(gt=0)] = 10.0
    follow_seconds: Annotated[float, Field(gt=0)] = 5.0
    client_header: str | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    flag_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    most_clients: Annotated[int, Field(ge=1)] = 100_000
    action: Literal["alarm", "throttle", "block"] = "alarm"
    store: Path | None = Path("guard.db")
    store_rows: Annotated[int, Field(ge=1)] = 10_000
    store_days: Annotated[float, Field(gt=0)] = 30.0

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.policy == "fall_back") != (self.fall_back is not None):
            raise ValueError("policy fall_back and the version to fall_back to go together")
        if (self.canary is not None) != (self.canary_share > 0):
            raise ValueError("canary and a canary_share above 0 go together")
        return self

    @property
    def radii(self) -> tuple[float, ...]:
        """At which certificates are graded, ascending; epsilon is one."""
        return graded(self.epsilon)
