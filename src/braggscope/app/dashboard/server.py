"""The API (/api/v1, OpenAPI at /api/v1/openapi.json) and the page, over a run or a finished map.

Values go as little-endian float32 in C order, their shape in the header X-Shape; everything else as JSON, in which NaN is null.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, FastAPI, HTTPException, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from braggscope.core.errors import InputError
from braggscope.core.modality import modalities

from .frames import modelled, modelled_curve, spots
from .pictures import Pictures
from .provider import Missing, Provider
from .security import Guard
from .shown import Shown, listed

HERE = Path(__file__).parent
PAGE = HERE / "page"
PUSH_S = 0.25
MOST_LISTED = 2000  # positions beyond a threshold
BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "little-endian float32, C order; X-Shape, X-Count"}
}
ScanNumber = Annotated[int | None, Query(ge=1, description="Number of the scan; by default the last one.")]


def application(provider: Provider, token: str | None = None) -> Guard:
    """The ASGI application.

    token: What a client must show; None: whoever reaches it on a loopback address may ask.
    """
    app = FastAPI(
        title="braggscope", version="1", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json",
        description="Maps of a running scan or of a finished map file; control of a run.",
    )  # fmt: skip
    app.state.provider, app.state.pictures = provider, Pictures(provider)
    app.include_router(reading, prefix="/api/v1")
    app.include_router(asking, prefix="/api/v1")
    app.include_router(pushing, prefix="/api/v1")

    @app.exception_handler(Missing)
    async def missing(request: Request, error: Missing) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    @app.exception_handler(InputError)
    async def wrong(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    @app.get("/", include_in_schema=False)
    def page(request: Request) -> Response:
        """The page; an address with the token is left for one without as soon as the cookie is set."""
        if "token" in request.query_params:
            return RedirectResponse("/")
        return FileResponse(PAGE / "index.html")

    app.mount("/static/bokeh", StaticFiles(directory=bokeh_files(), check_dir=False))
    app.mount("/static", StaticFiles(directory=PAGE, check_dir=False))
    return Guard(app, token)


def bokeh_files() -> Path:
    """Folder of BokehJS in the installed package. Raises ModuleNotFoundError where it is not installed."""
    import bokeh

    return Path(bokeh.__file__).parent / "server" / "static" / "js"


reading, asking, pushing = APIRouter(tags=["read"]), APIRouter(tags=["control"]), APIRouter(tags=["follow"])


def _provider(request: Request | WebSocket) -> Provider:
    found: Provider = request.app.state.provider
    return found


@reading.get("/status")
def status(request: Request, scan: ScanNumber = None) -> dict[str, Any]:
    """What is going on: scans, grid, variables, ledger, rates, latency, model version, control, provenance."""
    provider = _provider(request)
    found = provider.status(scan)
    found |= _models(found.get("modality"))
    try:
        shown = provider.shown(scan)
    except Missing:
        return {**found, "grid": None, "variables": [], "flag": None, "count": 0}
    grid = {"dims": list(shown.dims), "axes": shown.axes, "shape": list(shown.shape)}
    variables = [v.document() for v in shown.variables.values()]
    flag = {"masks": list(shown.flag_meanings), "meanings": list(shown.flag_meanings.values())}
    return {**found, "grid": grid, "variables": variables, "flag": flag, "count": shown.count}


@reading.get("/map")
def variables(request: Request, scan: ScanNumber = None) -> list[dict[str, Any]]:
    """The variables of the map."""
    return [v.document() for v in _provider(request).shown(scan).variables.values()]


@reading.get("/map/{variable}", responses=BINARY, response_class=Response)
def one_variable(request: Request, variable: str, scan: ScanNumber = None) -> Response:
    """A variable of the map (a quantity, its `_std`, `flag` ...)."""
    shown = _provider(request).shown(scan)
    count = shown.count  # before the values: what comes meanwhile is asked for again
    return binary(shown.array(_known(shown, variable)), shown.shape, count)


@reading.get("/changes")
def changes(
    request: Request,
    since: Annotated[int, Query(ge=0, description="`count` of the last answer.")],
    variables: Annotated[str, Query(max_length=2000, description="Names, joined by commas.")],
    scan: ScanNumber = None,
) -> dict[str, Any]:
    """What changed since: positions and values; `whole` where the map should be read anew."""
    provider = _provider(request)
    shown = provider.shown(scan)
    names = [_known(shown, name) for name in variables.split(",") if name]
    count = shown.count  # as above
    positions = provider.changes(since, scan)
    if positions is None:
        return {"count": count, "positions": [], "values": {}, "whole": True}
    values = {name: listed(shown.values[name][positions]) for name in names}
    return {"count": count, "positions": positions.tolist(), "values": values, "whole": False}


@reading.get("/history/{variable}", responses=BINARY, response_class=Response)
def earlier(request: Request, variable: str, at: Annotated[int, Query(ge=0)], scan: ScanNumber = None) -> Response:
    """A variable as it was when only the first `at` results were there."""
    provider = _provider(request)
    shown = provider.shown(scan)
    return binary(np.asarray(provider.history(variable, at, scan), "<f4"), shown.shape, at)


@reading.get("/points/{position}")
def point(request: Request, position: int, scan: ScanNumber = None) -> dict[str, Any]:
    """All values at a flat position, with standard deviations, units, flags, and what became of its frame."""
    provider = _provider(request)
    shown = provider.shown(scan)
    found = shown.point(_inside(shown, position))
    if "row" in shown.dims:
        return found
    try:
        ledger = provider.ledger(scan)
        word = ledger["words"][int(ledger["status"][position])]
        reason = ledger["reasons"][int(ledger["reason"][position])]
    except Missing:
        return found
    return {**found, "frame": word, "lost_because": reason or None}


@reading.get("/frames/{position}", responses=BINARY, response_class=Response)
def frame(request: Request, position: int, scan: ScanNumber = None) -> Response:
    """The recorded frame at a flat position, as it was mapped."""
    if position < 0:
        raise InputError(f"position must be 0 or more, got {position}")
    found = _provider(request).frame(position, scan)
    return binary(np.asarray(found, "<f4"), found.shape)


@reading.get("/model/{position}", responses=BINARY, response_class=Response)
def model(request: Request, position: int, scan: ScanNumber = None) -> Response:
    """What the model expects of the frame at a flat position."""
    provider = _provider(request)
    shown, values = _values_at(provider, position, scan)
    shape = _frame_shape(provider, position, scan)
    expected = modelled(shown.attributes, values, shape)
    return binary(np.asarray(expected, "<f4"), expected.shape)


@reading.get("/spots/{position}")
def predicted(request: Request, position: int, scan: ScanNumber = None) -> list[dict[str, Any]]:
    """Where the model expects spots in the frame at a flat position (laue)."""
    provider = _provider(request)
    shown, values = _values_at(provider, position, scan)
    return spots(shown.attributes, values, _frame_shape(provider, position, scan))


@reading.get("/curves/{row}/{column}")
def rocking(request: Request, row: int, column: int, scan: ScanNumber = None) -> dict[str, Any]:
    """The counts of a detector pixel over the scan and, where the map is over pixels, those that its values stand for (dfxm)."""
    provider = _provider(request)
    found = provider.curve(row, column, scan)
    try:
        shown = provider.shown(scan)
    except Missing:
        return {**found, "model": None}
    if shown.dims != ("row", "column"):
        return {**found, "model": None}
    values = shown.at(row * shown.shape[1] + column)
    return {**found, "model": modelled_curve(shown.attributes, values, found["motors"])}


@reading.get("/pictures")
def pictures(request: Request, scan: ScanNumber = None) -> list[dict[str, str]]:
    """Name and caption of each view that can be drawn of the map file; all are drawn when this is asked first."""
    found: Pictures = request.app.state.pictures
    return found.captions(scan)


@reading.get("/pictures/{name}", responses={200: {"content": {"image/png": {}}}}, response_class=Response)
def one_picture(request: Request, name: str, scan: ScanNumber = None) -> Response:
    """A view of the map file as PNG."""
    found: Pictures = request.app.state.pictures
    return Response(found.picture(name, scan), media_type="image/png", headers={"Cache-Control": "no-store"})


@reading.get("/beyond")
def beyond(request: Request, scan: ScanNumber = None) -> dict[str, dict[str, Any]]:
    """By variable, the points beyond the thresholds that are asked for: limits, count, and the first flat positions."""
    return _beyond(_provider(request), scan)


@reading.get("/ledger")
def ledger(request: Request, scan: ScanNumber = None) -> dict[str, Any]:
    """Counts of frames expected, received, lost with reason, late, refused."""
    found = _provider(request).ledger(scan)
    return {name: value for name, value in found.items() if not isinstance(value, np.ndarray)}


@reading.get("/ledger/status", responses=BINARY, response_class=Response)
def ledger_status(request: Request, scan: ScanNumber = None) -> Response:
    """What became of each position, as bytes (uint8); the words are in /ledger."""
    found = np.ascontiguousarray(_provider(request).ledger(scan)["status"], np.uint8)
    return Response(found.tobytes(), media_type="application/octet-stream", headers={"X-Shape": str(found.size)})


@reading.get("/training")
def training(request: Request) -> list[dict[str, Any]]:
    """Each version of the model: frames it was trained on, losses, time."""
    return _provider(request).training()


@reading.get("/suggest")
def suggest(request: Request, n: Annotated[int, Query(ge=1, le=1000)] = 1, scan: ScanNumber = None) -> list[dict[str, Any]]:
    """Where to measure next: lost positions first, then those of largest relative standard deviation."""
    provider = _provider(request)
    shown, missing = provider.shown(scan), {}
    try:
        found = provider.ledger(scan)
        lost = np.flatnonzero(found["status"] == found["words"].index("lost"))[:n]
        missing = {int(p): f"lost: {found['reasons'][int(found['reason'][p])]}" for p in lost}
    except Missing:
        pass
    return shown.suggest(n, missing)


@asking.post("/control")
def control(request: Request, document: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
    """Ask a run for something: paused, region, thresholds, remap, end_scan, stop; the answer is all that is asked for now."""
    return _provider(request).control(document)


@asking.post("/scans/end")
def end_scan(request: Request) -> dict[str, Any]:
    """End the scan under way; the next one that the source sends begins a map of its own."""
    provider = _provider(request)
    number = provider.status().get("scan")
    if number is None:
        raise Missing("no scan has begun yet")
    return provider.control({"end_scan": number})


@pushing.get("/events", response_class=StreamingResponse)
async def events(request: Request) -> StreamingResponse:
    """Server-sent events: a short status whenever something changed, at most four a second."""

    async def lines() -> AsyncIterator[str]:
        async for news in _news(_provider(request)):
            yield f"data: {json.dumps(news)}\n\n" if news is not None else ": still here\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@pushing.websocket("/updates")
async def updates(socket: WebSocket) -> None:
    """The same over a WebSocket; what a client sends is not read."""
    await socket.accept()
    try:
        async for news in _news(_provider(socket)):
            if news is not None:
                await asyncio.wait_for(socket.send_json(news), 10)
    except (WebSocketDisconnect, TimeoutError, RuntimeError):
        return


async def _news(provider: Provider) -> AsyncIterator[dict[str, Any] | None]:
    """A short status whenever it changed; None every ten seconds where it did not, to find clients that left."""
    last, quiet = "", 0.0
    while True:
        news = await run_in_threadpool(_short, provider)
        text = json.dumps(news, sort_keys=True)
        quiet += PUSH_S
        if text != last:
            last, quiet = text, 0.0
            yield news
        elif quiet > 10:
            quiet = 0.0
            yield None
        await asyncio.sleep(PUSH_S)


def _short(provider: Provider) -> dict[str, Any]:
    """What changes while a scan runs."""
    found = provider.status()
    names = ("state", "scan", "ledger", "rates", "latency_ms", "mapped", "model_version", "history", "control")
    try:
        count = provider.shown().count
    except Missing:
        count = 0
    return {**{name: found.get(name) for name in names}, "count": count, "scans": len(found["scans"])}


def _beyond(provider: Provider, scan: int | None = None) -> dict[str, dict[str, Any]]:
    """See `beyond`; empty where nothing is asked for, or there is no map yet."""
    asked = (provider.status(scan).get("control") or {}).get("thresholds") or {}
    try:
        shown = provider.shown(scan) if asked else None
    except Missing:
        return {}
    found = {}
    for name, (low, high) in asked.items():
        if shown is None or name not in shown.values:
            continue
        values = shown.values[name]
        low_, high_ = -math.inf if low is None else low, math.inf if high is None else high
        positions = np.flatnonzero((values < low_) | (values > high_))
        found[name] = {"limits": [low, high], "count": len(positions), "positions": positions[:MOST_LISTED].tolist()}
    return found


def binary(values: np.ndarray, shape: tuple[int, ...], count: int | None = None) -> Response:
    """Numbers as bytes, with their shape in a header."""
    headers = {"X-Shape": ",".join(map(str, shape)), "Cache-Control": "no-store"}
    if count is not None:
        headers["X-Count"] = str(count)
    return Response(np.ascontiguousarray(values, "<f4").tobytes(), media_type="application/octet-stream", headers=headers)


def _models(name: Any) -> dict[str, bool]:
    """Whether the modality knows what a frame should look like, or where spots should be."""
    kind = modalities().get(str(name))
    return {"frame_model": bool(kind and kind.frame_model), "spot_model": bool(kind and kind.spot_model)}


def _known(shown: Shown, name: str) -> str:
    if name not in shown.values:
        raise Missing(f"the map has no variable '{name[:60]}'; it has: {', '.join(shown.values)}")
    return name


def _inside(shown: Shown, position: int) -> int:
    points = int(np.prod(shown.shape))
    if not 0 <= position < points:
        raise HTTPException(404, f"the map has positions 0 to {points - 1}, got {position}")
    return position


def _values_at(provider: Provider, position: int, scan: int | None) -> tuple[Shown, dict[str, float]]:
    shown = provider.shown(scan)
    _inside(shown, position)
    return shown, shown.at(position)


def _frame_shape(provider: Provider, position: int, scan: int | None) -> tuple[int, int]:
    """Rows and columns of the frame as it was mapped."""
    try:
        rows, columns = provider.frame(position, scan).shape
    except Missing:
        stated = provider.status(scan).get("frame_shape")
        if stated is None:
            raise
        rows, columns = stated
    return int(rows), int(columns)
