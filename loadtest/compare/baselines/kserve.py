"""A custom predictor of KServe's Python SDK with Ultralytics: v1 JSON, as its examples have it."""

import argparse
import base64
import binascii
from typing import Any

from kserve import Model, ModelServer, model_server
from kserve.errors import InvalidInput

from loadtest.compare.baselines.detector import Detector, check, parser


class Predictor(Model):  # type: ignore[misc]
    """`{"instances": [{"image": {"b64": "..."}}], "parameters": {"confidence": 0.25}}`."""

    def __init__(self, name: str, weights: str, *, allowed: bool) -> None:
        super().__init__(name)
        self._weights, self._allowed = weights, allowed
        self.load()

    def load(self) -> bool:
        self._detector = Detector(self._weights, allowed=self._allowed)
        self.ready = True
        return self.ready

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002
        try:
            confidence = float(payload.get("parameters", {}).get("confidence", 0.25))
            images = [base64.b64decode(instance["image"]["b64"]) for instance in payload["instances"]]
            return {"predictions": [self._detector.detect(image, confidence) for image in images]}
        except (AttributeError, LookupError, TypeError, ValueError, binascii.Error) as exc:
            raise InvalidInput(f"{type(exc).__name__}: {exc}") from exc


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(parents=[parser("kserve"), model_server.parser], add_help=False).parse_args()
    check(arguments)
    ModelServer(http_port=arguments.port, workers=1, enable_grpc=False).start(
        [Predictor("detector", arguments.weights, allowed=arguments.allow_unpickling)]
    )
