"""The OpenAPI document: what FastAPI cannot know of endpoints that decode and encode themselves."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import FastAPI, Response

from ingress import openapi_calls as calls

VERSION = version("nexus-gateway")
DESCRIPTION = (
    "One URL and one key for every model provider. Requests and answers are OpenAI's; "
    "`cost`, `latency` and `provider` come in addition."
)

_REF = "#/components/schemas/{name}"
_COMPONENTS = "x-components"
_CREDENTIALS: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {"nexusToken": []}]

_ERROR = {
    "title": "Error",
    "description": "What every failed request is answered with.",
    "type": "object",
    "required": ["error"],
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
_MODEL_IN_PATH = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "nexusToken": {"type": "apiKey", "in": "header", "name": "X-Nexus-Token"},
}
_REFUSALS = {
    400: "The request is not right: `param` names the field, `message` says what it takes",
    401: "No or wrong credential",
    403: "The credential is not the admin token",
    404: "There is no such record",
    408: "The body came too slowly",
    413: "The body is too large",
    503: "The bus or the key store is away, or the gateway has no secret",
}
_AS_OF = {
    "X-Nexus-Ledger-Seq": {
        "description": "The newest change that the answer knows of",
        "schema": {"type": "integer", "minimum": 0},
    }
}
_OF_ALL = (400, 401, 403, 503)
_OF_BODIES = (408, 413)


def described(
    operation: str,
    answer: type[Any],
    *,
    status: int = 200,
    body: type[msgspec.Struct] | None = None,
    errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    """What to say to FastAPI of an admin route: its name, its answer and its body as msgspec
    types, and which of the errors it has beside those of all."""
    types: list[Any] = [answer] if body is None else [answer, body]
    (told, *asked), components = msgspec.json.schema_components(types, ref_template=_REF)
    extra: dict[str, Any] = {"security": _CREDENTIALS}
    if body is not None:
        extra["requestBody"] = {"required": bool(_required(body)), "content": _json(asked[0])}
        _let_null_be_the_default(components[body.__name__])
    extra[_COMPONENTS] = _portable(components)
    refused = sorted({*_OF_ALL, *errors, *(_OF_BODIES if body is not None else ())})
    return {
        "operation_id": operation,
        "summary": operation.replace("_", " ").capitalize(),
        "status_code": status,
        "response_class": Response,
        "responses": {
            status: {"content": _json(told), "headers": _AS_OF},
            **{code: _refusal(_REFUSALS[code]) for code in refused},
        },
        "openapi_extra": extra,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _refusal(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json({"$ref": _REF.format(name="Error")})}


def _required(body: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(body) if field.required]


def _let_null_be_the_default(schema: dict[str, Any]) -> None:
    """What a body may leave out, it may also say as null."""
    null = {"type": "null"}
    for name, field in schema["properties"].items():
        if name not in schema["required"] and null not in field.get("anyOf", ()):
            default = {"default": field.pop("default")} if "default" in field else {}
            schema["properties"][name] = {"anyOf": [field, null], **default}


def _portable(schema: Any) -> Any:
    r"""The schema with patterns as JSON Schema has them: its `$` is Python's `\Z`."""
    if isinstance(schema, dict):
        return {
            name: value.replace(r"\Z", "$") if name == "pattern" else _portable(value)
            for name, value in schema.items()
        }
    return [_portable(one) for one in schema] if isinstance(schema, list) else schema


def _chat(name: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    answer = {"type": "object", "additionalProperties": True}
    return _call(
        name,
        "chat",
        "Create a chat completion",
        calls.CHAT,
        parameters,
        {
            "description": "The answer, whole or as server-sent events",
            "content": {**_json(answer), "text/event-stream": {}},
        },
    )


def _embeddings(name: str) -> dict[str, Any]:
    answer = {"type": "object", "additionalProperties": True}
    return _call(
        name,
        "embeddings",
        "Create embeddings",
        calls.EMBEDDINGS,
        [],
        {"description": "The vectors, in the order of the input", "content": _json(answer)},
    )


def _call(
    name: str,
    tag: str,
    summary: str,
    body: dict[str, Any],
    parameters: list[dict[str, Any]],
    answer: dict[str, Any],
) -> dict[str, Any]:
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "operationId": name,
            "security": _CREDENTIALS,
            "parameters": parameters,
            "requestBody": {"required": True, "content": _json(_portable(body))},
            "responses": {
                "200": answer | {"headers": calls.RATES},
                **{
                    code: _refusal(text) | {"headers": calls.REFUSED.get(code, {})}
                    for code, text in calls.STATUSES.items()
                },
            },
        }
    }


def describe(app: FastAPI, chat_paths: list[str], embeddings_paths: list[str]) -> None:
    """Adds the calls of models to what FastAPI generates; `{model}` in a path is a parameter."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for number, path in enumerate(chat_paths):
                parameters = [_MODEL_IN_PATH] if "{model}" in path else []
                document["paths"][path] = _chat(f"chat_completions_{number}", parameters)
            for number, path in enumerate(embeddings_paths):
                document["paths"][path] = _embeddings(f"embeddings_{number}")
            schemas = {"Error": _ERROR, **document.get("components", {}).get("schemas", {})}
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for operation in _operations(document):
                # FastAPI says of every parameter that a wrong one gives 422; here it gives 400.
                operation["responses"].pop("422", None)
                schemas |= operation.pop(_COMPONENTS, {})
            document["components"] = {"schemas": schemas, "securitySchemes": _SCHEMES}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()
