"""The service in a server of its own, until it is told to end."""

from __future__ import annotations

import socket
from contextlib import closing, suppress

import uvicorn
from rich.console import Console

from flows.guard.app import application
from flows.guard.connections import allow_many, impatient
from flows.guard.service import Service
from tasks.core.errors import CertiflowError
from tasks.guarding.settings import GuardSettings

DRAIN_SECONDS = 10  # for the requests that are being answered when it ends
BACKLOG = 16_384  # connections that wait to be taken


def run(settings: GuardSettings) -> None:
    """Serves until SIGTERM or Ctrl-C, then answers what it has begun.

    Raises:
        CertiflowError: the port is taken; a version or the store cannot be used.
    """
    allow_many()
    listening = _listening(settings)
    with closing(listening), closing(Service(settings)) as service:
        _announce(service, listening.getsockname()[1])
        server = uvicorn.Server(
            uvicorn.Config(
                application(service),
                log_level="warning",
                access_log=False,
                lifespan="off",
                backlog=BACKLOG,
                http=impatient(settings.request_seconds),
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        with suppress(KeyboardInterrupt):  # raised once the server has shut down
            server.run(sockets=[listening])


def _listening(settings: GuardSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise CertiflowError(
            f"{settings.host}:{settings.port}: {error.strerror or error}: choose another --port"
        ) from error
    return listening


def _announce(service: Service, port: int) -> None:
    settings, served = service.settings, service.main.served
    accepted = served.bundle.clean.accepted(settings.epsilon)
    out = Console(highlight=False)
    for title, text in {
        "guarding": f"{served.title}, epsilon {settings.epsilon:g} ({served.perturbation.unit})",
        "accepts": f"{accepted:.1%} of clean inputs by intervals, more by the ladder",
        "others": f"policy {settings.policy}, after at most {settings.budget_ms:g} ms",
        "page": f"http://{settings.host}:{port}/",
        "ask": f'POST http://{settings.host}:{port}/predict {{"inputs": [...]}}; Ctrl-C ends it',
    }.items():
        out.print(f"{title:<10}  {text}", soft_wrap=True, markup=False)
