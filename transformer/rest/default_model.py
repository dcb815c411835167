"""The model of `TRANSFORMER_DEFAULT_MODEL`, of requests that name none."""

from fastapi import Request

from transformer.admission import Deadline
from transformer.errors import ModelNotFound
from transformer.triton.model import Model


async def find_default_model(request: Request, deadline: Deadline) -> Model | None:
    """The model of the setting; None where it is unset.

    Raises:
        ModelNotFound: no such model serves; the client named none, so the message names the setting.
        ServingError: it cannot be described yet.
    """
    name = request.app.state.settings.default_model
    if not name:
        return None
    try:
        model: Model = await request.app.state.dataplane.model(name, deadline=deadline)
    except ModelNotFound as exc:
        raise type(exc)(f"{exc}, which the setting TRANSFORMER_DEFAULT_MODEL names; see /status") from exc
    return model
