"""Why a call ends badly through no fault of its provider, as the client is told."""

from math import ceil

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
ADMISSION_EXPIRED = ErrorInfo(
    status=503,
    type="server_error",
    code="admission_expired",
    message=(
        "The gateway stood still between the call's admission and its start, so it was not run. "
        "Send the request again."
    ),
    retry_after=1.0,
)
BUDGET_UNAVAILABLE = ErrorInfo(
    status=503,
    type="server_error",
    code="budget_unavailable",
    message=(
        "An attempt failed and may have cost something; whether the budget allows another one "
        "cannot be said now, because the governor does not answer. Try again shortly."
    ),
    retry_after=2.0,
)
STOPPING = ErrorInfo(
    status=503,
    type="server_error",
    code="worker_stopped",
    message="The worker stopped before this stream was complete. Send the request again.",
    retry_after=1.0,
)
SECRET_MISMATCH = ErrorInfo(
    status=503,
    type="server_error",
    code="secret_mismatch",
    message=(
        "The worker cannot open the provider key that you sent: ingress and worker must share "
        "NEXUS_SECRET. Whoever runs the gateway must set the same for both."
    ),
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


def target_unavailable(target: Target, why: str, seconds: float) -> ErrorInfo:
    return ErrorInfo(
        status=503,
        type="server_error",
        code="target_unavailable",
        message=(
            f"'{target.provider}' failed so often that it is left alone for now, and this call has"
            f" no other target. Try again in {max(1, ceil(seconds))} s. What was wrong: {why}"
        ),
        provider=target.provider,
        retry_after=seconds,
    )


def key_missing(provider: str) -> ErrorInfo:
    return ErrorInfo(
        status=401,
        type="authentication_error",
        code="provider_key_missing",
        message=(
            "This provider needs your own key: send the header "
            f"X-Nexus-Provider-Key: {provider}=<key>."
        ),
        provider=provider,
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
