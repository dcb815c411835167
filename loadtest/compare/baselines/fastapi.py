"""FastAPI and Ultralytics: a plain `def` endpoint, which FastAPI runs in its thread pool.

The module has the name of the package that it imports: imports are absolute, so that the package is found.
"""

from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, UploadFile

from loadtest.compare.baselines.detector import Detection, Detector, check, parser


def create_app(detector: Detector) -> FastAPI:
    """The server."""
    app = FastAPI()

    @app.get("/health")
    def health() -> None:
        pass

    @app.post("/predict")
    def predict(image: UploadFile, confidence: Annotated[float, Form()] = 0.25) -> dict[str, list[Detection]]:
        try:
            return {"detections": detector.detect(image.file.read(), confidence)}
        except ValueError as exc:
            raise HTTPException(400, str(exc)) from exc

    return app


if __name__ == "__main__":
    options = parser("fastapi")
    options.add_argument("--instances", type=int, default=1, help="models that run at a time (default: %(default)s)")
    arguments = options.parse_args()
    check(arguments)
    detector = Detector(arguments.weights, allowed=arguments.allow_unpickling, instances=arguments.instances)
    app = create_app(detector)
    uvicorn.run(app, port=arguments.port, access_log=False)
