"""SageMaker's contract: `GET /ping` and `POST /invocations`, by what the routes of /predict, v1 and v2 do.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html. SageMaker passes few headers on, so
model and parameters, elsewhere in the path and the query, are in custom attributes: `model=digits,confidence=0.5`.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlencode

from fastapi import APIRouter, Request, Response
from multipart import parse_options_header

from transformer.admission import Deadline
from transformer.errors import InvalidRequest, NotReady, excerpt
from transformer.observability.request_record import current_request
from transformer.offload import offload
from transformer.rest import predict, v1, v2
from transformer.rest.admitted import admitted
from transformer.rest.default_model import find_default_model
from transformer.rest.documents import Ready
from transformer.rest.json_body import read_json
from transformer.rest.v2_codec import HEADER_LENGTH

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
# v2 with binary data: what Triton's own SageMaker server reads and writes, in place of the header.
BINARY = "application/vnd.sagemaker-triton.binary+json"
_JSON_SIZE = "json-header-size"
_JSON = "application/json"
_IMAGE = "application/x-image"  # of SageMaker's own algorithms
# A value may hold commas: `classes=cat,dog`.
_SEPARATOR = re.compile(r",(?=[^,=]+=)")
_MAX_ATTRIBUTES = 1024  # SageMaker's
_SHOWN_MODELS = 20
_PING_S = 1.5  # SageMaker waits 2

Respond = Callable[[str, Request, bytes, Deadline], Awaitable[Response]]

router = APIRouter(include_in_schema=False)


@router.get("/ping")
async def ping(request: Request) -> Ready:
    """200 once the models can be served, 503 otherwise; within the time that SageMaker waits."""
    try:
        async with asyncio.timeout(_PING_S):
            return await v2.ready(request)
    except TimeoutError as exc:
        raise NotReady(f"Triton and the synchroniser do not respond within {_PING_S} s") from exc


@router.post("/invocations")
async def invocations(request: Request) -> Response:
    """Images and rows as for /predict, JSON as for v1 and v2, v2 with binary data; which of them, the body says."""
    model, parameters = read_attributes(request.headers)
    content_type, length = read_content_type(request.headers.get("content-type", ""))
    async with admitted(request) as (body, deadline):
        model = model or await _choose_model(request, deadline)
        request.path_params["model"] = model  # for the metrics
        respond: Respond = predict.respond
        if length:
            respond = v2.respond
        elif content_type.partition(";")[0].strip().lower() == _JSON:
            respond = await offload(lambda: choose_protocol(body), cost=len(body))
        response = await respond(model, _rewrite(request, parameters, content_type, length), body, deadline)
    if json_size := response.headers.get(HEADER_LENGTH):
        response.headers["content-type"] = f"{BINARY};{_JSON_SIZE}={json_size}"
    record = current_request()
    response.headers[ATTRIBUTES] = f"model={quote(record.model)},version={record.version}"
    return response


def read_attributes(headers: Mapping[str, str]) -> tuple[str, dict[str, list[str]]]:
    """The model, "" where none is named, and the parameters.

    Raises:
        InvalidRequest: the custom attributes are no such list, or name another model than the target.
    """
    text = headers.get(ATTRIBUTES, "").strip()
    if len(text) > _MAX_ATTRIBUTES:
        raise InvalidRequest(f"{ATTRIBUTES}: got {len(text)} characters, expected at most {_MAX_ATTRIBUTES}")
    parameters: dict[str, list[str]] = {}
    for entry in _SEPARATOR.split(text) if text else ():
        name, found, value = (part.strip() for part in entry.partition("="))
        if not found or not name or value.endswith(","):
            raise InvalidRequest(
                f"{ATTRIBUTES}: got {excerpt(entry)}, expected model=<name>,confidence=0.5 and the like"
            )
        parameters.setdefault(name, []).append(unquote(value))
    names = {*parameters.pop("model", ()), *([headers[TARGET_MODEL]] if TARGET_MODEL in headers else ())}
    if len(names) > 1:
        raise InvalidRequest(f"{ATTRIBUTES} and {TARGET_MODEL}: got models {excerpt(sorted(names))}, expected one")
    return next(iter(names), ""), parameters


def read_content_type(text: str) -> tuple[str, str]:
    """The content type for the other routes, and the length of the JSON before binary data; "" without such data.

    Raises:
        InvalidRequest: a body with binary data, without that length.
    """
    media_type, options = parse_options_header(text)
    if media_type != BINARY:
        return "application/octet-stream" if media_type == _IMAGE else text, ""
    if not (length := options.get(_JSON_SIZE)):
        raise InvalidRequest(f"Content-Type: got {text[:100]!r}, expected {BINARY};{_JSON_SIZE}=<bytes of the JSON>")
    return "application/octet-stream", length


def choose_protocol(body: bytes) -> Respond:
    """What a JSON body is for: named tensors are v2, other inputs and instances v1, the rest is an item or several.

    Raises:
        InvalidRequest: it is not JSON.
        PayloadTooLarge: it has too many values.
    """
    document: Any = read_json(body) if b'"instances"' in body or b'"inputs"' in body else None
    if not isinstance(document, dict) or not document.keys() & {"instances", "inputs"}:
        return predict.respond
    inputs = document.get("inputs")
    tensors = isinstance(inputs, list) and any(isinstance(each, dict) and "datatype" in each for each in inputs)
    return v2.respond if tensors else v1.respond


async def _choose_model(request: Request, deadline: Deadline) -> str:
    """The model of a request that names none.

    Raises:
        InvalidRequest: there are several.
        NotReady: there is none.
        ServingError: that of the setting does not serve.
    """
    if model := await find_default_model(request, deadline):
        return model.name
    models = await request.app.state.dataplane.names()
    if not models:
        raise NotReady("no model serves, or was not rejected; see /status")
    if len(models) > 1:
        shown = ", ".join([*models[:_SHOWN_MODELS], *(["..."] if len(models) > _SHOWN_MODELS else [])])
        raise InvalidRequest(f"{ATTRIBUTES}: got no model, expected model=<name> of one of {shown}")
    return str(models[0])


def _rewrite(request: Request, parameters: Mapping[str, list[str]], content_type: str, length: str) -> Request:
    """The request as the other routes read it."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
    headers.append((b"content-type", content_type.encode("latin-1")))
    if length:
        headers.append((HEADER_LENGTH.lower().encode(), length.encode("latin-1")))
    query = urlencode(parameters, doseq=True).encode()
    return Request({**request.scope, "headers": headers, "query_string": query}, request.receive)
