"""The models of a server, by its own metadata over HTTP and gRPC."""

from typing import Any

import httpx
import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from environment import api_key
from loadtest.errors import LoadTestError, WrongArgument
from loadtest.latency.payloads import BATCH_ROWS, Target
from loadtest.tasks import TABLE_TASKS, TASKS

_ROWS = 8 * BATCH_ROWS


def describe(url: str, grpc: str, *, model: str, timeout_s: float) -> Target:
    """A model as the target of requests, still without images; the server's first one where none is named.

    Raises:
        LoadTestError: the server does not respond, or the model is unknown (WrongArgument).
        AccessError: the server requires a key, or another one.
    """
    with httpx.Client(base_url=url, headers=api_key.headers(), timeout=timeout_s, trust_env=False) as client:
        try:
            names = _get(client, "/v2/models")["models"]
            if not names:
                raise LoadTestError(f"{url} serves no model; next: look at GET {url}/status")
            if model and model not in names:
                raise WrongArgument(f"MODEL: got {model}, expected one of {', '.join(names)}")
            metadata = _get(client, f"/v2/models/{model or names[0]}")
            task, tensor = metadata["parameters"].get("task"), metadata["inputs"][0]
        except (ValueError, LookupError, TypeError) as exc:
            raise LoadTestError(f"{url}: responds, but not as Nereid does ({exc!r}); next: another URL") from exc
    if task not in TASKS:
        raise WrongArgument(f"MODEL: {metadata['name']} has task {task!r}, expected one of {', '.join(sorted(TASKS))}")
    # Any numbers will do, as long as they are always the same.
    columns = max(tensor["shape"][-1], 1) if task in TABLE_TASKS else 0
    rows = np.random.default_rng(0).uniform(0, 8, (_ROWS, columns)).astype(np.float32)
    return Target(url, grpc, metadata["name"], task, tensor["name"], (), rows, timeout_s)


def check_grpc(target: Target) -> None:
    """Verify gRPC before the run: otherwise every request of it would fail.

    Raises:
        LoadTestError: no response, or the model is unknown.
        AccessError: the server requires a key, or another one.
    """
    address = target.grpc
    with tritonclient.grpc.InferenceServerClient(address) as client:
        try:
            client.get_model_metadata(target.model, headers=api_key.headers(), client_timeout=target.timeout_s)
        except InferenceServerException as exc:
            text = str(exc.message()).partition("\n")[0]
            api_key.check(f"gRPC {address}", str(exc.status()).removeprefix("StatusCode."), text)
            raise LoadTestError(f"gRPC {address}: {text}; next: GRPC=<host:port>, or WEIGHTS without grpc") from exc


def _get(client: httpx.Client, path: str) -> Any:
    try:
        response = client.get(path)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise LoadTestError(f"{client.base_url}: {exc}; next: make serve, or URL=<where it runs>") from exc
    api_key.check(str(client.base_url).rstrip("/"), response.status_code, response.text)
    if response.is_error:
        raise LoadTestError(f"{response.url}: {response.status_code} {response.text[:300]}")
    return response.json()
