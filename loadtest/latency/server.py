"""What a server says of its models, asked over HTTP like any stranger would."""

from typing import Any

import httpx
import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from environment import api_key
from loadtest.latency.questions import BATCH_ROWS, KINDS, TABLE, Target

_ROWS = 8 * BATCH_ROWS


class LoadTestError(Exception):
    """Nothing can be measured; the message says what and what to do.

    Attributes:
        status: of the process.
    """

    status = 1


class WrongArgument(LoadTestError):
    """What was asked for cannot be."""

    status = 2


def describe(url: str, grpc: str, *, model: str, timeout_s: float) -> Target:
    """A model to ask, still without pictures; the server's first one where none is named.

    Raises:
        LoadTestError: nobody answers, or there is no such model (WrongArgument).
        AccessError: it wants a key, or another one.
    """
    with httpx.Client(base_url=url, headers=api_key.headers(), timeout=timeout_s, trust_env=False) as client:
        try:
            names = _get(client, "/v2/models")["models"]
            if not names:
                raise LoadTestError(f"{url} serves no model; next: look at GET {url}/status")
            if model and model not in names:
                raise WrongArgument(f"MODEL: got {model}, expected one of {', '.join(names)}")
            metadata = _get(client, f"/v2/models/{model or names[0]}")
            task, tensor = metadata["parameters"]["task"], metadata["inputs"][0]
        except (ValueError, LookupError, TypeError) as exc:
            raise LoadTestError(f"{url}: answers, but not as Nereid does ({exc!r}); next: another URL") from exc
    if not any(task in kind.tasks for kind in KINDS.values()):
        raise WrongArgument(f"MODEL: {metadata['name']} has task {task!r}, expected detect, classify or tabular")
    # Any numbers do, but the same ones each time.
    columns = max(tensor["shape"][-1], 1) if task in TABLE else 0
    rows = np.random.default_rng(0).uniform(0, 8, (_ROWS, columns)).astype(np.float32)
    return Target(url, grpc, metadata["name"], task, tensor["name"], (), rows, timeout_s)


def check_grpc(target: Target) -> None:
    """Find out now what would otherwise be failures.

    Raises:
        LoadTestError: nobody answers there, or not for this model.
        AccessError: it wants a key, or another one.
    """
    address = target.grpc
    with tritonclient.grpc.InferenceServerClient(address) as client:
        try:
            client.get_model_metadata(target.model, headers=api_key.headers(), client_timeout=target.timeout_s)
        except InferenceServerException as exc:
            words = str(exc.message()).partition("\n")[0]
            api_key.check(f"gRPC {address}", str(exc.status()).removeprefix("StatusCode."), words)
            raise LoadTestError(f"gRPC {address}: {words}; next: GRPC=<host:port>, or WEIGHTS without grpc") from exc


def _get(client: httpx.Client, path: str) -> Any:
    try:
        reply = client.get(path)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise LoadTestError(f"{client.base_url}: {exc}; next: make serve, or URL=<where it runs>") from exc
    api_key.check(str(client.base_url).rstrip("/"), reply.status_code, reply.text)
    if reply.is_error:
        raise LoadTestError(f"{reply.url}: {reply.status_code} {reply.text[:300]}")
    return reply.json()
