"""LitServe and Ultralytics: a worker process beside the one that speaks HTTP."""

from typing import Any

from fastapi import HTTPException, Request
from litserve import LitAPI, LitServer

from loadtest.compare.baselines.detector import Detection, Detector, check, parser


class DetectorAPI(LitAPI):  # type: ignore[misc]
    """A multipart form: `image`, `confidence`."""

    def __init__(self, weights: str, *, allowed: bool) -> None:
        super().__init__()
        self._weights, self._allowed = weights, allowed

    def setup(self, device: str) -> None:  # noqa: ARG002
        self._detector = Detector(self._weights, allowed=self._allowed)

    def decode_request(self, request: Request) -> tuple[bytes, float]:
        form: Any = request  # LitServe passes the form itself
        return form["image"].file.read(), float(form.get("confidence", 0.25))

    def predict(self, request: tuple[bytes, float]) -> list[Detection]:
        try:
            return self._detector.detect(*request)
        except ValueError as exc:
            raise HTTPException(400, str(exc)) from exc

    def encode_response(self, detections: list[Detection]) -> dict[str, list[Detection]]:
        return {"detections": detections}


if __name__ == "__main__":
    arguments = parser("litserve").parse_args()
    check(arguments)
    api = DetectorAPI(arguments.weights, allowed=arguments.allow_unpickling)
    server = LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="warning")
