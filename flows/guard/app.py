"""The service's addresses: its own, those of Open Inference Protocol v2 and of MLflow's servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from time import monotonic
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from flows.guard import pages, protocols
from flows.guard.service import ALARM, Answered, BlockedError, BusyError, Service
from flows.guard.serving import Served
from tasks.core.guard.contract import Asked, BrokenRuleError

RETRY_SECONDS = "1"
WITH_BODY = {"requestBody": {"required": True, "content": {"application/json": {}}}}
TITLES = {
    400: "The body cannot be read",
    403: "Blocked",
    404: "No such model",
    408: "The body came too slowly",
    413: "The body is too large",
    422: "A rule is broken",
    429: "Too many requests",
}
Read = Callable[[bytes, Served], Asked]


class RefusedError(Exception):
    """A request that is not answered: the status, and why in one line."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def application(service: Service) -> FastAPI:
    """All routes of a service."""
    app = FastAPI(
        title="certiflow guard",
        version=version("certiflow"),
        description="Labels with a proof that no input within epsilon has another one.",
        docs_url=None,
        redoc_url=None,
    )
    _own(app, service)
    _v2(app, service)
    _mlflow(app, service)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        service.metrics.refused.labels(str(error.status)).inc()
        return _problem(request.url.path, error)

    app.add_exception_handler(RefusedError, refused)
    return app


def _own(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict", summary="Labels, each with its proof or its flag", openapi_extra=WITH_BODY
    )
    async def predict(request: Request) -> Response:
        answered = await _answered(service, request, protocols.native_inputs)
        return _json(protocols.native_answer(answered))

    @app.get("/", response_class=HTMLResponse, summary="What is being decided, live")
    async def page() -> Response:
        return HTMLResponse(pages.live_page())

    @app.get("/live", summary="What the page shows")
    async def live() -> Response:
        return _json(pages.live(service))

    @app.get("/docs", response_class=HTMLResponse, summary="This list")
    async def documents() -> Response:
        return HTMLResponse(pages.documents(app.openapi()))

    @app.get("/metrics", summary="For Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _v2(app: FastAPI, service: Service) -> None:
    def named(name: str, number: str | None = None) -> Served:
        served = service.main.served
        if name != served.name or number not in {None, str(served.number)}:
            asked = name if number is None else f"{name}/{number}"
            raise RefusedError(404, f"{asked} is not in service: expected {served.title}")
        return served

    @app.get("/v2", summary="Server metadata")
    async def server() -> Response:
        return _json({"name": "certiflow", "version": version("certiflow"), "extensions": []})

    @app.get("/v2/health/live", summary="Whether the process answers")
    async def is_live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", summary="Whether a version is in service, and what does not work")
    async def is_ready() -> Response:
        return _json(
            {"ready": True, "model": service.main.served.title, "troubles": service.troubles}
        )

    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{number}"):

        @app.get(path, summary="Model metadata")
        async def metadata(name: str, number: str | None = None) -> Response:
            return _json(protocols.v2_metadata(named(name, number)))

        @app.get(f"{path}/ready", summary="Whether this model is in service")
        async def model_is_ready(name: str, number: str | None = None) -> Response:
            return _json({"name": named(name, number).name, "ready": True})

        @app.post(f"{path}/infer", summary="Guarded columns as tensors", openapi_extra=WITH_BODY)
        async def infer(request: Request, name: str, number: str | None = None) -> Response:
            named(name, number)
            asked_id: list[str | None] = []

            def read(body: bytes, served: Served) -> Asked:
                found, asked = protocols.v2_inputs(body, served)
                asked_id.append(found)
                return asked

            answered = await _answered(service, request, read)
            return _json(protocols.v2_answer(answered, asked_id[0]))


def _mlflow(app: FastAPI, service: Service) -> None:
    for path in ("/ping", "/health"):

        @app.get(path, summary="As MLflow's scoring server")
        async def is_healthy() -> Response:
            return Response("\n", media_type="text/plain")

    @app.get("/version", summary="MLflow's version")
    async def mlflow_version() -> Response:
        return Response(version("mlflow"), media_type="text/plain")

    @app.post("/invocations", summary="As MLflow's scoring server", openapi_extra=WITH_BODY)
    async def invocations(request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        answered = await _answered(
            service, request, lambda body, served: protocols.mlflow_inputs(body, kind, served)
        )
        return _json(protocols.mlflow_answer(answered))


async def _answered(service: Service, request: Request, read: Read) -> Answered:
    """The way of every request: its client, its version, its body, its inputs, their answers."""
    arrived = monotonic()
    client = _client(service, request)
    served = service.served_for(client)
    body = await _body(service, request)
    try:
        asked = read(body, served)
    except protocols.MalformedError as error:
        raise RefusedError(400, str(error)) from error
    except BrokenRuleError as error:
        raise RefusedError(422, str(error)) from error
    most = service.settings.most_rows
    if len(asked.inputs) > most:
        raise RefusedError(413, f"{len(asked.inputs)} inputs: expected at most {most} in a request")
    try:
        return await service.answer(served, asked, client, arrived)
    except BusyError as error:
        raise RefusedError(429, f"{error}: try again in a second") from error
    except BlockedError as error:
        raise RefusedError(403, f"this client is blocked, since {ALARM}") from error


def _client(service: Service, request: Request) -> str:
    header = service.settings.client_header
    named = None if header is None else request.headers.get(header)
    address = request.client.host if request.client is not None else "unknown"
    return (named or address)[:128]


async def _body(service: Service, request: Request) -> bytes:
    """Never more of it than is allowed, and not for longer."""
    most, seconds = service.settings.most_bytes, service.settings.request_seconds
    too_large = RefusedError(413, f"the body is larger than {most} bytes: send fewer inputs")
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError as error:
        raise RefusedError(
            408, f"the body took longer than {seconds:g} s: send it again"
        ) from error
    return b"".join(parts)


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _problem(path: str, error: RefusedError) -> Response:
    """As the protocol of the address has it; else RFC 9457."""
    if path.startswith("/v2"):
        content: dict[str, Any] = {"error": error.detail}
    elif path == "/invocations":
        content = {"error_code": "BAD_REQUEST", "message": error.detail}
    else:
        content = {"title": TITLES[error.status], "status": error.status, "detail": error.detail}
    headers = {"Retry-After": RETRY_SECONDS} if error.status == 429 else {}
    return Response(
        orjson.dumps(content), error.status, headers, media_type="application/problem+json"
    )
