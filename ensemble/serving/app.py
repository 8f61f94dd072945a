"""Web application: the page and its endpoints. No data of a request is stored."""

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
from ensemble.serving.model import ServedModels
from ensemble.serving.queue import Limits, RefusedError, RequestQueue
from ensemble.serving.security import SecurityMiddleware, safe_headers

PAGE = Path(__file__).with_name("page.html")
_IMAGE = {
    "requestBody": {
        "description": "The bytes of a PNG, JPEG, TIFF or DICOM file, or a form with that file.",
        "required": True,
        "content": {"application/octet-stream": {}, "multipart/form-data": {}},
    }
}


def make_app(served: ServedModels, host: str, limits: Limits) -> ASGIApp:
    """Application of these models, for a server at `host`. Errors are {"error": message}."""
    page = PAGE.read_text(encoding="utf-8")
    queue = RequestQueue(limits)
    # documentation pages would load scripts from other sites; telemetry is off
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
        """Status, and the number of queued and running requests."""
        return {"status": "ok", "requests": queue.requests}

    @app.get("/about")
    async def about() -> dict[str, Any]:
        """Models, classes, and limits of file and image size."""
        most = {"max_bytes": limits.bytes, "too_large": limits.too_large}
        return served.about() | most | {"max_pixels": max_pixels()}

    @app.post("/predict", openapi_extra=_IMAGE)
    async def predict(request: Request, preview: bool = True) -> JSONResponse:
        """Probabilities of an image by class; `preview` adds its pixels."""
        return JSONResponse(await queue.do(request, partial(served.predict, preview=preview)))

    @app.post("/", openapi_extra=_IMAGE)
    async def upload(request: Request) -> JSONResponse:
        """Probabilities of an image by class, for a form sent to the page's address."""
        return await predict(request, preview=False)

    @app.post("/map", openapi_extra=_IMAGE)
    async def heat_map(
        request: Request, name: Annotated[str, Query(alias="class")]
    ) -> JSONResponse:
        """Heat map of one class for an image: a grey PNG of the same shape."""
        served.predictor.ensemble.check_class(name)
        return JSONResponse(await queue.do(request, partial(served.heat_map, name=name)))

    ours = UserError, RefusedError
    for kind in (*ours, ClientDisconnect, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _error_response)
    # outermost, so that every response has the headers
    return SecurityMiddleware(app, host=host, headers=safe_headers(page))


async def _error_response(_: Request, error: Exception) -> JSONResponse:
    """Error response: status and one sentence."""
    match error:
        case UserError():
            status, sentence = 422, str(error)
        case RefusedError():
            status, sentence = error.status, error.sentence
        case ClientDisconnect():
            status, sentence = 400, "the client closed the connection"
        case RequestValidationError():
            first = error.errors()[0]
            status, sentence = 422, f"'{first['loc'][-1]}' in the address: {first['msg'].lower()}"
        case HTTPException():
            status, sentence = error.status_code, f"{error.detail}; see /openapi.json"
        case _:
            traceback.print_exception(error)
            name = type(error).__name__
            status, sentence = 500, f"internal error ({name}): report this as a bug"
    return JSONResponse({"error": sentence}, status_code=status)
