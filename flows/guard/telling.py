"""A thread that tells Prefect of alarms: a server that is away keeps no answer waiting.

By plain HTTP: Prefect's own client is not loaded in the service's process.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from pydantic import TypeAdapter, ValidationError

from tasks.core.errors import CertiflowError, first_line
from tasks.core.uris import without_passwords
from tasks.guarding.alarms import ALARM_EVENT, CAUSE, RESOURCE, guarded_model

URL, HEADERS = "PREFECT_API_URL", "PREFECT_CLIENT_CUSTOM_HEADERS"
WAITING = 1024  # alarms; what comes while so many wait is not told
SECONDS = 5.0  # for each step of a request, and for the last ones when the guard ends
AGAIN_SECONDS = 5.0  # after a failure


class Teller:
    """Takes alarms from the service's thread, and tells them in its own, in their order.

    What could not be told is told again until it is: an alarm is raised once.
    """

    def __init__(self, api_url: str, headers: Mapping[str, str]) -> None:
        self.trouble = ""
        self._url, self._headers = f"{api_url.rstrip('/')}/events", headers
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    @classmethod
    def configured(cls) -> Teller | None:
        """For the API that the environment names, if it names one.

        Raises:
            CertiflowError: the headers of Prefect's clients are no object of texts.
        """
        api_url = os.environ.get(URL)
        if not api_url:
            return None
        try:
            said = os.environ.get(HEADERS, "{}")
            return cls(api_url, TypeAdapter(dict[str, str]).validate_json(said))
        except ValidationError as error:
            raise CertiflowError(
                f"{HEADERS} cannot be read: expected a JSON object of texts, such as "
                '{"Authorization": "Bearer ..."}'
            ) from error

    def tell(self, model: str, version: int, cause: str, said: str) -> None:
        """An alarm about a version of a registered model. Never waits."""
        if self._waiting.qsize() < WAITING:
            self._waiting.put(_event(model, version, cause, said))

    def close(self) -> None:
        """Tells what waits, where the server takes it at once."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join(SECONDS)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            while not self._is_told(event):
                if self._closing.wait(AGAIN_SECONDS):
                    return

    def _is_told(self, event: dict[str, Any]) -> bool:
        try:
            answer = httpx.post(self._url, json=[event], headers=self._headers, timeout=SECONDS)
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.trouble = without_passwords(
                f"alarms are not told to Prefect at {self._url}: {first_line(error)}"
            )
            return False
        self.trouble = ""
        return True


def _event(model: str, version: int, cause: str, said: str) -> dict[str, Any]:
    """As Prefect's API takes it; it counts events with the same id once."""
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": ALARM_EVENT,
        "resource": {
            RESOURCE: guarded_model(model),
            "prefect.resource.name": model,
            CAUSE: cause,
        },
        "payload": {"version": version, "message": said},
    }
