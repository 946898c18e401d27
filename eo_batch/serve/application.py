"""The web application: a page of all runs, one for each run, its report, and the same as JSON.

| path | what |
|---|---|
| `/` | all runs of the store, and how far they are |
| `/runs/NAME` | one run, stage by stage, with what was given up and why |
| `/runs/NAME/report` | its report |
| `/runs/NAME/status.json` | what `eo-batch status --json` prints |
| `/healthz` | whether this process answers; does not ask the store |

It has no log-in: whoever reaches it may read. Links are relative, so that a proxy may serve it below any path.
"""

import re
from collections.abc import Awaitable, Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from eo_batch.core.errors import EoBatchError, StoreError, UsageError
from eo_batch.entry.status import status_json
from eo_batch.io.store import Store
from eo_batch.serve.board import Board
from eo_batch.settings import Settings
from eo_batch.stages.report import words

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""Names of runs, as specs may have them."""
_HEADERS = {
    # As in the reports: nothing is loaded from anywhere.
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def application(store: Store, settings: Settings) -> Starlette:
    """The pages of a store's runs, as an ASGI application."""
    pages = _Pages(Board(store, settings))
    routes = [
        Route("/", pages.index),
        Route("/healthz", pages.health),
        Route("/runs/{name}", pages.run),
        Route("/runs/{name}/report", pages.report),
        Route("/runs/{name}/status.json", pages.status),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_with_headers)],
        exception_handlers={EoBatchError: pages.problem, HTTPException: pages.problem},
    )


class _Pages:
    """Endpoints. They wait for the store, so Starlette runs them in threads."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._environment = Environment(
            loader=PackageLoader("eo_batch.serve"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"count": words.count, "size": words.size, "duration": words.duration}

    def index(self, request: Request) -> Response:
        return self._page("runs.html.j2", store=self._board.store.url, runs=self._board.runs())

    def health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def run(self, request: Request) -> Response:
        return self._page("run.html.j2", run=self._board.run(_name(request)))

    def status(self, request: Request) -> Response:
        told = self._board.run(_name(request))
        if told.problem:
            raise HTTPException(409, told.problem)
        return JSONResponse(status_json(told.name, told.stages))

    def report(self, request: Request) -> Response:
        name = _name(request)
        page = self._board.report(name)
        if page is None:
            raise HTTPException(404, f"{name} has no report yet")
        return HTMLResponse(page)

    async def problem(self, request: Request, error: Exception) -> Response:
        match error:
            case HTTPException():
                code, message = error.status_code, error.detail
            case StoreError():
                code, message = 503, str(error)
            case UsageError():
                code, message = 404, str(error)
            case _:
                code, message = 409, str(error)
        return self._page("problem.html.j2", code, message=message)

    def _page(self, template: str, code: int = 200, **given: object) -> Response:
        return HTMLResponse(self._environment.get_template(template).render(given), code)


def _name(request: Request) -> str:
    name = str(request.path_params["name"])
    if not _NAME.fullmatch(name):
        raise HTTPException(404, f"{name!r} is no name of a run")
    return name


async def _with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response
