"""JSON answers of the routes that FastAPI serves."""

from typing import Any

import msgspec
from fastapi import Response


def json_response(content: Any, headers: dict[str, str] | None = None) -> Response:
    """Any msgspec-encodable value as a JSON response."""
    return Response(msgspec.json.encode(content), media_type="application/json", headers=headers)
