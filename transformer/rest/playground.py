"""The playground: two pages for a browser at `/` and `/stack`, and their files; nothing of them is made per request."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from transformer.rest.documents import Alive

FILES = Path(__file__).parents[1] / "playground"
STATIC_PATH = "/playground"
_REVALIDATED = {"Cache-Control": "no-cache"}  # after an update no browser mixes files of two releases


class _Files(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # as it is called
        response.headers.update(_REVALIDATED)
        return response


router = APIRouter()


@router.get("/", summary="Liveness, or the playground for a browser", response_model=Alive)
async def home(request: Request) -> Response:
    """The playground where `Accept` names HTML, else what KServe's v1 clients read as liveness."""
    if "text/html" in request.headers.get("accept", ""):
        return _page("index.html")
    return Response(Alive().model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


@router.get("/stack", include_in_schema=False)
async def stack() -> Response:
    """The page of the model repository, of the queue and of latency."""
    return _page("stack.html")


def add_files(app: FastAPI) -> None:
    """Serve the files that both pages load."""
    app.mount(STATIC_PATH, _Files(directory=FILES), name="playground")


def _page(name: str) -> Response:
    return FileResponse(FILES / name, headers={"Vary": "Accept", **_REVALIDATED})
