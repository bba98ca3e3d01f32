"""Why a call ends badly through no fault of its provider, as the client is told."""

from ledger.blobs import BlobGone
from ledger.publisher import Refused
from schemas.call import Target
from schemas.errors import ErrorInfo

CANCELLED = ErrorInfo(
    status=499,
    type="invalid_request_error",
    code="client_disconnect",
    message="The client closed the connection before the answer was complete.",
)
DEADLINE = ErrorInfo(
    status=504,
    type="provider_error",
    code="timeout",
    message="The call did not finish before its deadline. Ask for less or raise the deadline.",
)
BUG = ErrorInfo(
    status=500,
    type="server_error",
    code="internal_error",
    message="The gateway failed; its log says why.",
)
STOPPING = ErrorInfo(
    status=503,
    type="server_error",
    code="worker_stopped",
    message="The worker stopped before this stream was complete. Send the request again.",
    retry_after=1.0,
)
WORKER_LOST = ErrorInfo(
    status=502,
    type="server_error",
    code="worker_lost",
    message=(
        "The worker of this stream went away. What was sent before is all there is: "
        "send the request again for a whole answer."
    ),
)


def unknown_provider(target: Target) -> ErrorInfo:
    return ErrorInfo(
        status=502,
        type="provider_error",
        code="provider_unknown",
        message=f"This worker has no provider '{target.provider}' configured.",
        provider=target.provider,
    )


def queue_full(target: Target, refused: Refused) -> ErrorInfo:
    return ErrorInfo(
        status=429,
        type="rate_limit_error",
        code="queue_full",
        message=f"The queue of '{target.provider}' takes no more: {refused}. Try again shortly.",
        provider=target.provider,
        retry_after=1.0,
    )


def body_gone(gone: BlobGone) -> ErrorInfo:
    return ErrorInfo(
        status=503, type="server_error", code="body_gone", message=str(gone), retry_after=1.0
    )
