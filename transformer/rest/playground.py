"""The playground: two pages for a browser at `/` and `/stack`, and their files; nothing of them is made per request."""

import re
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from transformer.rest.documents import Alive

FILES = Path(__file__).parents[1] / "playground"
STATIC_PATH = "/playground"
_REVALIDATED = {"Cache-Control": "no-cache"}  # after an update no browser mixes files of two releases
_VARY = {"Vary": "Accept"}
_WITHOUT_HTML = re.compile(r"text/html\s*;\s*q=0(?:\.0*)?\s*(?:,|$)")


class _Files(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # as it is called
        response.headers.update(_REVALIDATED)
        return response


router = APIRouter()
_files = _Files(directory=FILES)


@router.head("/", include_in_schema=False)
@router.get("/", summary="Liveness, or the playground for a browser", response_model=Alive)
async def home(request: Request) -> Response:
    """The playground where `Accept` names HTML, else what KServe's v1 clients read as liveness."""
    accept = request.headers.get("accept", "").lower()
    if "text/html" not in accept or _WITHOUT_HTML.search(accept):
        return Response(Alive().model_dump_json(), media_type="application/json", headers=_VARY)
    page = await _files.get_response("index.html", request.scope)
    page.headers.update(_VARY)
    return page


@router.head("/stack", include_in_schema=False)
@router.get("/stack", include_in_schema=False)
async def stack(request: Request) -> Response:
    """The page of the model repository, of the queue and of latency."""
    if request.scope.get("had_trailing_slash"):
        return RedirectResponse("../stack")  # what the page loads is relative to its path
    return await _files.get_response("stack.html", request.scope)


def add_files(app: FastAPI) -> None:
    """Serve the files that both pages load."""
    app.mount(STATIC_PATH, _files, name="playground")
