"""Every error a client can see, in the one shape.

NexusError
├── InvalidRequest        400  invalid_request_error
│   ├── ModelNotFound     404  invalid_request_error, model_not_found
│   └── TooLarge          413  invalid_request_error
├── Unauthenticated       401  authentication_error
├── Forbidden             403  permission_error
├── NotFound              404  not_found_error
├── RateLimited           429  rate_limit_error
├── ProviderFailed        502/504 or the provider's own 4xx  provider_error
├── Unavailable           503  server_error
└── Internal              500  server_error
"""

from math import ceil
from typing import Any

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as data: it travels in frames and events, and renders to the client's body.

    `should_retry` tells SDKs what to do where the status alone would tell them otherwise.
    """

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    provider: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None
    extra_headers: dict[str, str] = {}

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON body, `{"error": {...}}`; `provider` is null when none was involved."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                "provider": self.provider,
                "request_id": request_id,
            }
        }

    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, where waiting helps; `x-should-retry` where it was
        decided; 408 ends the connection. `extra_headers` as they are."""
        headers = dict(self.extra_headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, ceil(self.retry_after)))
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        if self.status == 408:
            headers["Connection"] = "close"
        return headers


class NexusError(Exception):
    """The root: raise a subclass; the edge turns it into its ErrorInfo once."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        provider: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
        extra_headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.info = ErrorInfo(
            status=status or self.status,
            type=self.type,
            message=message,
            code=code or self.code,
            param=param,
            provider=provider,
            retry_after=retry_after,
            should_retry=should_retry,
            extra_headers=extra_headers or {},
        )


class InvalidRequest(NexusError):
    status = 400
    type = "invalid_request_error"


class ModelNotFound(InvalidRequest):
    status = 404
    code = "model_not_found"


class TooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class Unauthenticated(NexusError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(NexusError):
    status = 403
    type = "permission_error"


class NotFound(NexusError):
    status = 404
    type = "not_found_error"


class RateLimited(NexusError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ProviderFailed(NexusError):
    status = 502
    type = "provider_error"


class Unavailable(NexusError):
    status = 503
    type = "server_error"
    code = "unavailable"


class Internal(NexusError):
    status = 500
    type = "server_error"
    code = "internal_error"
