"""Describes the hot routes in the OpenAPI document: FastAPI knows nothing of plain endpoints."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

VERSION = version("nexus-gateway")
DESCRIPTION = (
    "One URL and one key for every model provider. Requests and answers are OpenAI's; "
    "`cost`, `latency` and `provider` come in addition."
)

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "provider", "request_id"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "provider": {"type": ["string", "null"]},
                "request_id": {"type": "string"},
            },
        }
    },
}
_CHAT = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "properties": {
        "model": {"type": "string", "description": "A name from GET /v1/models"},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["role"], "additionalProperties": True},
        },
        "stream": {"type": "boolean", "default": False},
        "stream_options": {
            "type": "object",
            "properties": {"include_usage": {"type": "boolean"}},
        },
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
        "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "max_tokens": {"type": "integer", "minimum": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 128},
        "response": {
            "type": "object",
            "properties": {
                "include_usage": {"type": "boolean", "default": True},
                "include_cost": {"type": "boolean", "default": True},
                "include_latency": {"type": "boolean", "default": True},
                "include_model_info": {"type": "boolean", "default": False},
            },
        },
    },
}
_STATUSES = {
    "400": "The request cannot be asked of a provider",
    "401": "No or wrong credential",
    "404": "The model does not exist",
    "413": "The body is too large",
    "429": "The queue is full, or the provider says so",
    "502": "The provider failed",
    "503": "No worker, or the bus is away",
    "504": "The provider or the call took too long",
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(name: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    answer = {"type": "object", "additionalProperties": True}
    return {
        "post": {
            "tags": ["chat"],
            "summary": "Create a chat completion",
            "operationId": name,
            "security": [{"bearer": []}, {"apiKey": []}],
            "parameters": parameters,
            "requestBody": {"required": True, "content": _json(_CHAT)},
            "responses": {
                "200": {
                    "description": "The answer, whole or as server-sent events",
                    "content": {**_json(answer), "text/event-stream": {}},
                },
                **{
                    code: {"description": text, "content": _json(_ERROR)}
                    for code, text in _STATUSES.items()
                },
            },
        }
    }


def describe(app: FastAPI, chat_paths: list[str]) -> None:
    """Adds the chat operations to what FastAPI generates; `{model}` in a path is a parameter."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for number, path in enumerate(chat_paths):
                parameters = (
                    [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string"},
                        }
                    ]
                    if "{model}" in path
                    else []
                )
                document["paths"][path] = _operation(f"chat_completions_{number}", parameters)
            document.setdefault("components", {})["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
