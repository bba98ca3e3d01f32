"""Which failed attempts speak against their target, and how; the same as in the rollup's SQL."""

from typing import Literal

from schemas.errors import ErrorInfo

Kind = Literal["", "rate_limits", "timeouts", "denials", "failures"]

_OF_ONE_KEY = frozenset({"authentication_error", "rate_limit_error"})
# No provider was asked, or not with a key of ours.
_OF_THE_GATEWAY = frozenset({"queue_full", "budget_exceeded", "provider_key_missing"})


def kind_of(error: ErrorInfo | None, billed_to: str) -> Kind | None:
    """What an attempt counts as: empty for a good one, None for one that says nothing of its
    target. `billed_to` as the event has it.

    An error that the client made shows that the target answers; one about the client's own key is
    nobody else's.
    """
    if error is None or error.type == "invalid_request_error":
        return ""
    if error.type == "server_error" or error.code in _OF_THE_GATEWAY:
        return None
    if billed_to and error.type in _OF_ONE_KEY:
        return None
    if error.type == "rate_limit_error":
        return "rate_limits"
    if error.code == "timeout":
        return "timeouts"
    return "denials" if error.code == "provider_auth" else "failures"
