"""The service in a server of its own, until it is told to end."""

from __future__ import annotations

import socket
from contextlib import closing, suppress

import uvicorn
from rich.console import Console

from flows.guard.app import application
from flows.guard.connections import allow_many, impatient
from flows.guard.service import Service
from tasks import console
from tasks.core.errors import CertiflowError
from tasks.guarding.settings import GuardSettings

DRAIN_SECONDS = 10  # for the requests that are being answered when it ends
BACKLOG = 16_384  # connections that wait to be taken
FEW_ACCEPTED = 0.5  # of clean inputs, by intervals: most users would not expect so few


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
    clean = served.bundle.clean
    accepted = clean.accepted(settings.epsilon)
    out = Console(highlight=False)
    for title, text in {
        "guarding": f"{served.title}, epsilon {settings.epsilon:g} ({served.perturbation.unit})",
        "accepts": f"{accepted:.1%} of clean inputs by intervals, more by the ladder",
        "others": f"policy {settings.policy}, after at most {settings.budget_ms:g} ms",
        "page": f"http://{settings.host}:{port}/",
        "ask": f'POST http://{settings.host}:{port}/predict {{"inputs": [...]}}; Ctrl-C ends it',
    }.items():
        out.print(f"{title:<10}  {text}", soft_wrap=True, markup=False)
    if accepted < FEW_ACCEPTED:
        console.warn(_too_far(settings.epsilon, clean.half_accepted_to))


def _too_far(epsilon: float, half_accepted_to: float) -> str:
    """What to do where intervals accept few clean inputs at epsilon."""
    certified = "a version of certified training (conf/mnist_ibp.yaml) is accepted much farther"
    if half_accepted_to == 0:
        return f"of half of the clean inputs intervals prove nothing at any epsilon: {certified}"
    return (
        f"epsilon {epsilon:g} is far for this version: intervals accept half of the clean inputs "
        f"up to --epsilon {half_accepted_to:g}; {certified}"
    )
