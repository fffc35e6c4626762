"""The application: addresses, what they take and what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

import ultrasam
from ultrasam.errors import UltraSamError
from ultrasam.io.scan import Scan, scan_from_bytes
from ultrasam.web import downloads, edits
from ultrasam.web.engine import Engine
from ultrasam.web.limits import Limits, WebError
from ultrasam.web.names import attachment, safe_name
from ultrasam.web.page import Page
from ultrasam.web.store import Store
from ultrasam.web.study import Study

Number = Annotated[int, Field(ge=0, le=10_000_000)]
Reader = Callable[[bytes, str], Scan]
SLOW_SECONDS = 1.0
routes = APIRouter()


class Edit(BaseModel):
    """An edit as the page sends it; see `ultrasam.web.edits.apply`."""

    action: Literal["point", "box", "undo", "redo", "delete", "clear", "name", "category"]
    object: Number | None = None
    x: float | None = None
    y: float | None = None
    inside: bool = True
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    text: Annotated[str, Field(max_length=1000)] | None = None


@dataclass(frozen=True)
class Services:
    """What the addresses work with."""

    engine: Engine
    limits: Limits
    reader: Reader
    store: Store
    page: Page


async def services(request: Request) -> Services:
    """Return what belongs to the application of a request."""
    found: Services = request.app.state.services
    return found


Given = Annotated[Services, Depends(services)]


async def opened(given: Given, key: str) -> Study:
    """Return the open file of an address."""
    return given.store.get(key)


Opened = Annotated[Study, Depends(opened)]


async def existing(study: Opened, frame: Number) -> int:
    """Return the frame of an address, which the file has."""
    if frame >= study.scan.frames:
        raise WebError(404, f"The file has {study.scan.frames} frames, found frame {frame + 1}.")
    return frame


Frame = Annotated[int, Depends(existing)]


def create_app(
    engine: Engine, limits: Limits, store: Store | None = None, reader: Reader = scan_from_bytes
) -> FastAPI:
    """Return the application around a model, without the guard of `ultrasam.web.guard`.

    Args:
        engine: the model.
        limits: what the server keeps and takes.
        store: of the open files; None for a new one.
        reader: opens the bytes of a file by its name.
    """
    # Neither the pages of the interface's documentation, which load scripts from elsewhere, nor its description.
    app = FastAPI(title="UltraSam", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.services = Services(
        engine, limits, reader, Store(limits, engine.forget) if store is None else store, Page()
    )
    app.include_router(routes)
    _handle_errors(app)
    return app


@routes.get("/")
async def index(given: Given) -> Response:
    """Return the page."""
    return given.page.answer("index.html")


@routes.get("/static/{name}")
async def static(given: Given, name: str) -> Response:
    """Return a file of the page."""
    return given.page.answer(name)


@routes.get("/favicon.ico")
async def icon(given: Given) -> Response:
    """Return the icon, which browsers ask for by themselves."""
    return given.page.answer("icon.svg")


@routes.get("/api/info")
async def info(given: Given) -> dict[str, Any]:
    """Return what the server is and takes."""
    return {
        "version": ultrasam.__version__,
        "model": _model_words(given.engine),
        "max_upload_bytes": given.limits.upload_bytes,
        "idle_minutes": given.limits.idle_seconds / 60,
        "encode_seconds": given.engine.encode_seconds,
    }


@routes.post("/api/studies", status_code=201)
async def open_file(
    request: Request, given: Given, name: Annotated[str, Query(max_length=2000)] = ""
) -> dict[str, Any]:
    """Open the file that is the body of the request."""
    with given.store.receiving() as take:
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > given.limits.upload_bytes:
            take(int(stated))
        body = bytearray()
        async for part in request.stream():
            take(len(part))
            body += part
        study = await run_in_threadpool(_open, given, bytes(body), safe_name(name))
    return _about(study)


@routes.get("/api/studies/{key}")
async def about(study: Opened) -> dict[str, Any]:
    """Return what is known of a file."""
    return _about(study)


@routes.delete("/api/studies/{key}", status_code=204)
async def close_file(given: Given, key: str) -> Response:
    """Close a file."""
    given.store.close(key)
    return Response(status_code=204)


@routes.post("/api/studies/{key}/alive", status_code=204)
async def alive(study: Opened) -> Response:
    """Keep a file open whose page is."""
    return Response(status_code=204)


@routes.post("/api/studies/{key}/clip/{state}", status_code=204)
def clip(given: Given, study: Opened, state: Literal["on", "off"]) -> Response:
    """Keep masks inside of the field of view, or not."""
    study.clip = state == "on"
    given.engine.refit(study)
    return Response(status_code=204)


@routes.get("/api/studies/{key}/frames/{frame}/image")
def image(study: Opened, frame: Frame) -> Response:
    """Return a frame as PNG."""
    return Response(_png(study.read(frame)), media_type="image/png")


@routes.post("/api/studies/{key}/frames/{frame}/encode")
def encode(given: Given, study: Opened, frame: Frame) -> dict[str, Any]:
    """Encode a frame, and its neighbours when there is time."""
    start = time.perf_counter()
    study.shown = frame
    # A frame that was left while it waited for its turn is not encoded any more.
    if given.engine.session_if(study, frame, lambda: study.shown == frame) is not None:
        around = [other for other in (frame + 1, frame - 1, frame + 2) if 0 <= other < study.scan.frames]
        # Where that is slow, the clicks on this frame would have to share the machine with it.
        given.engine.prefetch(study, around[:1] if given.engine.encode_seconds > SLOW_SECONDS else around)
    return {"seconds": time.perf_counter() - start, "encode_seconds": given.engine.encode_seconds}


@routes.get("/api/studies/{key}/frames/{frame}/objects")
def objects(study: Opened, frame: Frame) -> dict[str, Any]:
    """Return all objects with their masks on a frame."""
    return edits.state(study, frame)


@routes.post("/api/studies/{key}/frames/{frame}/edits")
def edit(given: Given, study: Opened, frame: Frame, change: Edit) -> dict[str, Any]:
    """Carry out an edit."""
    answer = edits.apply(given.engine, given.limits, study, frame, change.model_dump())
    given.store.make_room(study)
    return answer


@routes.get("/api/studies/{key}/files/{kind}")
def files(given: Given, study: Opened, kind: str, frame: Number = 0) -> Response:
    """Return a result file."""
    made = downloads.make(study, kind, min(frame, study.scan.frames - 1), _model_words(given.engine))
    return Response(made.data, media_type=made.media_type, headers={"content-disposition": attachment(made.name)})


def _open(given: Services, data: bytes, name: str) -> Study:
    if not data:
        raise WebError(400, f"{name} is empty (0 bytes); choose another file.")
    scan = given.reader(data, name)
    height, width = scan.size
    # Images and volumes are kept decoded, other files as they came.
    decoded = 3 * scan.frames * height * width if scan.kind in ("image", "volume", "array") else 0
    return given.store.add(scan, len(data) + decoded)


def _about(study: Study) -> dict[str, Any]:
    scan = study.scan
    return {
        "id": study.key,
        "name": scan.name,
        "kind": scan.kind,
        "frames": scan.frames,
        "height": scan.size[0],
        "width": scan.size[1],
        "spacing": scan.spacing,
        "clip": study.clip,
        "rate": scan.rate,
        "files": downloads.offers(scan),
    }


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a frame (H, W, 3) RGB as PNG; grey ones with one channel, a third of the size."""
    grey = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    stored = pixels[..., 0] if grey else pixels[..., ::-1]
    done, data = cv2.imencode(".png", np.ascontiguousarray(stored), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise WebError(500, "The frame cannot be shown.")
    return bytes(data)


def _model_words(engine: Engine) -> str:
    card = engine.model.card or {}
    return str(card.get("name") or card.get("arch") or getattr(engine.model.sam, "arch", "model"))


def _handle_errors(app: FastAPI) -> None:
    """Answer every error with one sentence as JSON."""

    def say(status: int, sentence: str) -> Response:
        return JSONResponse({"error": sentence}, status_code=status)

    @app.exception_handler(WebError)
    async def refused(request: Request, error: WebError) -> Response:
        return say(error.status, str(error))

    @app.exception_handler(UltraSamError)
    async def wrong_input(request: Request, error: UltraSamError) -> Response:
        return say(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ())[1:]) or "the request"
        return say(400, f"The request is not valid: {where}: {first.get('msg', 'wrong value')}.")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        sentence = "There is nothing at this address."
        return say(error.status_code, sentence if error.status_code == 404 else f"Refused: {error.detail.lower()}.")

    @app.exception_handler(MemoryError)
    async def full(request: Request, error: MemoryError) -> Response:
        return say(507, "The server has no memory left for this; close other files or open a smaller one.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # Starlette raises the error again after this answer, so that the server's log has its place.
        return say(500, "Something failed on the server; the terminal where it runs says what.")
