"""Which models there are: `/v1/models` in the format of OpenAI, `/models` as configured."""

from typing import Any

from fastapi import APIRouter, Request, Response

from ingress import models
from ingress.answering import json_response
from ingress.auth import Authenticator
from ingress.routing import Router


def router(plans: Router, keys: Authenticator, prefixes: tuple[str, ...]) -> APIRouter:
    """`GET …/models`, `GET …/models/{id}` for callers with a key; `GET /models` for everyone."""
    routes = APIRouter(tags=["models"])

    async def list_models(request: Request, available: bool = False) -> Response:
        """The models that the key may use, with capabilities and prices; null is unknown."""
        principal = await keys.authenticate(request.scope["headers"])
        return json_response(models.models(plans, principal.allows, available))

    async def get_model(request: Request, model_id: str) -> Response:
        """One model by any name that a call could use."""
        principal = await keys.authenticate(request.scope["headers"])
        principal.require_model(model_id, plans.chosen(model_id))
        return json_response(models.model(plans, model_id))

    async def configured() -> Response:
        """The models of this gateway's configuration, with costs in USD per token."""
        return json_response(models.configured_models(plans))

    described: dict[str, Any] = {"response_class": Response}
    for prefix in prefixes:
        routes.add_api_route(f"{prefix}/models", list_models, methods=["GET"], **described)
        routes.add_api_route(
            f"{prefix}/models/{{model_id:path}}", get_model, methods=["GET"], **described
        )
    routes.add_api_route("/models", configured, methods=["GET"], **described)
    return routes
