"""The routes of an ML backend, as Label Studio requests them (`label_studio_ml/api.py` of HumanSignal)."""

import logging
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.requests import Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from integrations.label_studio.images import ImageError, Images
from integrations.label_studio.labelling_config import FITTING, ConfigError, Control, controls
from integrations.label_studio.regions import regions
from integrations.nereid_client import Model, Nereid, NereidError

logger = logging.getLogger(__name__)
# Of these the image is the cause: the other tasks of the request go on.
_OF_THE_IMAGE = frozenset({400, 413, 415})
_CONNECTIONS = 4


class Backend:
    """Predictions for tasks."""

    def __init__(self, nereid: Nereid, images: Images, confidence: float | None) -> None:
        self._nereid, self._images, self._confidence = nereid, images, confidence

    def describe(self) -> Model:
        """The model that serves now: a swap may have other names."""
        return self._nereid.metadata().expect(*FITTING)

    def predict(self, tasks: list[dict[str, Any]], config: str) -> list[Any]:
        """A prediction for each task; an empty list, which is not stored, where its image fails."""
        model = self.describe()
        shown = controls(config, model)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return list(pool.map(lambda task: self._predict_task(task, model, shown), tasks))

    def _predict_task(self, task: dict[str, Any], model: Model, shown: list[Control]) -> Any:
        try:
            found, version = self._find(task, model, shown)
        except ImageError as error:
            logger.warning("task %s has no prediction: %s", task.get("id"), error)
            return []
        scores = [each["score"] for each in found]
        return {
            "result": found,
            "score": sum(scores) / len(scores) if scores else 0.0,
            "model_version": f"{model.name}/{version}",
        }

    def _find(self, task: dict[str, Any], model: Model, shown: list[Control]) -> tuple[list[dict[str, Any]], str]:
        parameters: dict[str, Any] = {"confidence": self._confidence}
        if any(control.kind == "BrushLabels" for control in shown):
            parameters["mask"] = "rle"
        found, version = [], model.version
        for key in dict.fromkeys(control.key for control in shown):
            there = [control for control in shown if control.key == key]
            value = (task.get("data") or {}).get(key)
            # A list of images (valueList): their regions have the number of the image.
            for index, address in enumerate(value if isinstance(value, list) else [value]):
                response = self._respond(self._images.fetch(address, task.get("id")), parameters)
                version = str(response["model"]["version"])
                number = {"item_index": index} if isinstance(value, list) else {}
                found += [region | number for region in regions(response, model, there)]
        return found, version

    def _respond(self, image: bytes, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._nereid.predict(image, **parameters)
        except NereidError as error:
            if error.status in _OF_THE_IMAGE:
                raise ImageError(str(error)) from error
            raise


def app(backend: Backend, user: str = "", password: str = "") -> FastAPI:
    """The application; where a user is given, it requires him and his password (Label Studio: Basic Authentication)."""

    def authorise(given: Annotated[HTTPBasicCredentials | None, Depends(HTTPBasic(auto_error=False))]) -> None:
        pairs = [(user, given.username if given else ""), (password, given.password if given else "")]
        if user and not all(secrets.compare_digest(ours.encode(), theirs.encode()) for ours, theirs in pairs):
            raise HTTPException(401, "Basic Authentication is required", {"WWW-Authenticate": "Basic"})

    routes = FastAPI(title="Nereid for Label Studio", dependencies=[Depends(authorise)], openapi_url=None)

    @routes.get("/")
    @routes.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "Nereid"}

    @routes.post("/setup")
    def setup(body: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
        model = backend.describe()
        if config := body.get("schema"):
            controls(str(config), model)
        return {"model_version": f"{model.name}/{model.version}"}

    @routes.get("/versions")
    def versions() -> dict[str, list[str]]:
        model = backend.describe()
        return {"versions": [f"{model.name}/{model.version}"]}

    @routes.post("/predict")
    def predict(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return {"results": backend.predict(body.get("tasks") or [], str(body.get("label_config") or ""))}

    @routes.post("/webhook")
    @routes.post("/train")
    def webhook() -> dict[str, str]:
        return {"status": "ignored: Nereid trains no models"}

    routes.add_exception_handler(ConfigError, _respond_with(400))
    routes.add_exception_handler(NereidError, _respond_with(502))
    return routes


def _respond_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def respond(_request: Request, error: Exception) -> Response:
        # Label Studio shows the status alone: the words are in this log.
        logger.error("%s", error)
        return JSONResponse({"error": str(error)}, status)

    return respond
