"""The page and its endpoints; nothing of a request is kept."""

from __future__ import annotations

import traceback
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from core.data.images.size_limit import max_pixels
from core.errors import UserError
from ensemble.serving.model import Served
from ensemble.serving.queue import Limits, RefusedError, Turns
from ensemble.serving.security import Guard, safe_headers

PAGE = Path(__file__).with_name("page.html")
_IMAGE = {
    "requestBody": {
        "description": "The bytes of a PNG, JPEG, TIFF or DICOM file, or a form with that file.",
        "required": True,
        "content": {"application/octet-stream": {}, "multipart/form-data": {}},
    }
}


def make_app(served: Served, host: str, limits: Limits) -> ASGIApp:
    """The page of these models, for a server at `host`. Errors are {"error": one sentence}."""
    page = PAGE.read_text(encoding="utf-8")
    turns = Turns(limits)
    # pages of documentation would load scripts from elsewhere; no telemetry in any environment
    app = FastAPI(
        title="longtail-cxr",
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )

    @app.get("/", response_class=HTMLResponse)
    async def show() -> str:
        """The page."""
        return page

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Status, and how many images wait or are worked on."""
        return {"status": "ok", "requests": turns.requests}

    @app.get("/about")
    async def about() -> dict[str, Any]:
        """The models, their classes, and the limits of a file and an image."""
        most = {"max_bytes": limits.bytes, "too_large": limits.too_large}
        return served.about() | most | {"max_pixels": max_pixels()}

    @app.post("/predict", openapi_extra=_IMAGE)
    async def predict(request: Request, preview: bool = True) -> JSONResponse:
        """Probabilities of an image by class, and with `preview` its pixels."""
        return JSONResponse(await turns.do(request, partial(served.predict, preview=preview)))

    @app.post("/", openapi_extra=_IMAGE)
    async def upload(request: Request) -> JSONResponse:
        """Probabilities of an image by class, for a form sent to the page's own address."""
        return await predict(request, preview=False)

    @app.post("/map", openapi_extra=_IMAGE)
    async def heat_map(
        request: Request, name: Annotated[str, Query(alias="class")]
    ) -> JSONResponse:
        """The heat map of one class over the same image: a grey PNG of its shape."""
        served.predictor.ensemble.check_class(name)
        return JSONResponse(await turns.do(request, partial(served.heat_map, name=name)))

    ours = UserError, RefusedError
    for kind in (*ours, ClientDisconnect, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
    # outermost, so that every answer has the headers
    return Guard(app, host=host, headers=safe_headers(page))


async def _answer(_: Request, error: Exception) -> JSONResponse:
    """One sentence on an error, with its status."""
    match error:
        case UserError():
            status, sentence = 422, str(error)
        case RefusedError():
            status, sentence = error.status, error.sentence
        case ClientDisconnect():
            status, sentence = 400, "the client is gone"
        case RequestValidationError():
            first = error.errors()[0]
            status, sentence = 422, f"'{first['loc'][-1]}' in the address: {first['msg'].lower()}"
        case HTTPException():
            status, sentence = error.status_code, f"{error.detail}; see /openapi.json"
        case _:
            traceback.print_exception(error)
            name = type(error).__name__
            status, sentence = 500, f"this is a mistake of the program ({name}), not yours"
    return JSONResponse({"error": sentence}, status_code=status)
