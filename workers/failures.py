"""What went wrong with a provider, told to the client: the error table, and no secret in it."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from schemas.errors import ErrorInfo
from schemas.ids import Clock
from workers.providers.base import NOT_AS_ASKED, AttemptFailed, Blame
from workers.rate_headers import reset_after
from workers.redaction import Redaction

LONGEST_MESSAGE = 500
_AS_SENT = frozenset({400, 404, 413, 422})
_WORTH_A_RETRY = frozenset({409, 425})
# Google says of a wrong key that the request is wrong.
_WRONG_KEY = "API_KEY_INVALID"


class Detail(NamedTuple):
    """What a provider said about its error, in whichever shape; `wait` is seconds."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    status: int | None = None
    kind: str = ""
    wait: float | None = None


class Failures:
    """Makes the failures of one `provider`; `secrets` are texts that no message may contain.

    With a `client_key` they are those of an attempt with the client's own key: no message shows any
    part of it, and that the provider refuses it is for the client to mend.
    """

    def __init__(
        self, provider: str, secrets: Iterable[str], clock: Clock, client_key: str = ""
    ) -> None:
        self.provider = provider
        self._secrets = tuple(secrets)
        self._clock = clock
        self._client_key = client_key
        self._redaction = Redaction(self._secrets, client_key)

    def with_client_key(self, key: str) -> "Failures":
        """The failures of an attempt with this key; the same ones without a key."""
        return Failures(self.provider, self._secrets, self._clock, key) if key else self

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptFailed:
        """The provider answered with an error status; `headers` must ignore case."""
        detail = read_detail(body)
        wait = retry_after(headers, self._clock)
        if wait is None:
            wait = detail.wait
        if wait is None and status == 429:
            wait = reset_after(headers, self._clock.now_ns())
        return self._of_status(status, detail, wait)

    def told(self, body: bytes) -> AttemptFailed:
        """The provider put an error object where the answer, or the next chunk, should be."""
        detail = read_detail(body)
        if detail.status is not None:
            status = detail.status
        elif "rate_limit" in detail.kind or "rate_limit" in (detail.code or ""):
            status = 429
        else:
            status = 500
        return self._of_status(status, detail, detail.wait)

    def unsendable(self, why: str, param: str | None = None) -> AttemptFailed:
        """The request cannot be sent to the provider at all; `why` is a sentence."""
        info = ErrorInfo(
            status=400,
            type="invalid_request_error",
            message=self._clean(why),
            param=param,
            provider=self.provider,
        )
        return AttemptFailed(info, retryable=False, reached=False)

    def broken(
        self, what: str, *, reached: bool = True, retryable: bool = True, network: bool = False
    ) -> AttemptFailed:
        """The provider could not be reached or did not speak as it should; `what` it did."""
        return self._failed(
            502,
            f"{self.provider} {what}.",
            None,
            retryable,
            reached,
            cost_known=not reached,
            network=network,
            blame="provider" if network else "target",
        )

    def timed_out(self, what: str, *, reached: bool = True, network: bool = False) -> AttemptFailed:
        """The provider was too slow; `what` it did not do in time."""
        return self._failed(
            504,
            f"{self.provider} {what} in time. Try again, or ask for a longer timeout.",
            "timeout",
            True,
            reached,
            cost_known=not reached,
            network=network,
            blame="provider" if network else "target",
        )

    def _of_status(self, status: int, detail: Detail, wait: float | None) -> AttemptFailed:
        detail = self._cleaned(detail)
        said = detail.message
        if detail.kind == _WRONG_KEY:
            status = 401
        if status in _AS_SENT:
            info = ErrorInfo(
                status=status,
                type="invalid_request_error",
                message=said or f"{self.provider} refused the request with status {status}.",
                code=detail.code,
                param=detail.param,
                provider=self.provider,
            )
            return AttemptFailed(info, retryable=False, reached=True)
        if status == 429:
            info = ErrorInfo(
                status=429,
                type="rate_limit_error",
                message=said or f"{self.provider} is limiting its rate. Try again later.",
                code=detail.code or "rate_limit_exceeded",
                provider=self.provider,
                retry_after=wait,
            )
            out_of_quota = detail.code == "insufficient_quota"
            return AttemptFailed(info, retryable=not out_of_quota, reached=True, retry_after=wait)
        if status in (401, 403):
            return self._unauthorized(said)
        if status == 408:
            message = f"{self.provider} did not read the request in time"
            message += f": {said}" if said else ". Try again."
            return self._failed(504, message, "timeout", True, True, wait)
        message = f"{self.provider} failed with status {status}" + (f": {said}" if said else ".")
        retryable = status >= 500 or status in _WORTH_A_RETRY
        blame: Blame = "target" if status >= 500 else ""
        return self._failed(502, message, detail.code, retryable, True, wait, blame=blame)

    def _unauthorized(self, said: str) -> AttemptFailed:
        if not self._client_key:
            message = (
                f"{self.provider} refused the gateway's credentials. "
                "Whoever runs the gateway must check the key of this provider."
            )
            return self._failed(502, message, "provider_auth", False, True, blame="provider")
        info = ErrorInfo(
            status=401,
            type="authentication_error",
            message=f"{self.provider} refused the key that you sent for it"
            + (f": {said}" if said else ". Check that key."),
            code="provider_auth",
            provider=self.provider,
        )
        return AttemptFailed(info, retryable=False, reached=True)

    def _failed(
        self,
        status: int,
        message: str,
        code: str | None,
        retryable: bool,
        reached: bool,
        wait: float | None = None,
        cost_known: bool = True,
        network: bool = False,
        blame: Blame = "",
    ) -> AttemptFailed:
        info = ErrorInfo(
            status=status,
            type="provider_error",
            message=message,
            code=code,
            provider=self.provider,
        )
        return AttemptFailed(
            info,
            retryable=retryable,
            reached=reached,
            retry_after=wait,
            cost_known=cost_known,
            network=network,
            blame=blame,
        )

    def _cleaned(self, detail: Detail) -> Detail:
        return detail._replace(
            message=self._clean(detail.message),
            # An HTTP status in place of a code says nothing more.
            code=None if detail.code is None or detail.status else self._clean(detail.code),
            param=None if detail.param is None else self._clean(detail.param),
        )

    def _clean(self, text: str) -> str:
        """Secrets out first, so that shortening cannot leave half of one."""
        text = self._redaction.clean(text)
        if len(text) > LONGEST_MESSAGE:
            text = text[: LONGEST_MESSAGE - 1] + "…"
        return text


def read_detail(body: bytes) -> Detail:
    """The message, code, param and status in an error body of any known shape.

    Known are `{"error": {...}}`, `{"error": "text"}`, `{"message": ...}`, `{"detail": ...}`, each
    also as the only element of a list. Nothing is taken from what is no JSON, such as an HTML page.
    """
    try:
        error: Any = msgspec.json.decode(body)
    except NOT_AS_ASKED:
        return Detail()
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict) and error.get("error"):
        error = error["error"]
    if isinstance(error, str):
        return Detail(error)
    if not isinstance(error, dict):
        return Detail()
    message = error.get("message") or error.get("detail") or ""
    if not isinstance(message, str):
        message = msgspec.json.encode(message).decode()
    code, param = error.get("code"), error.get("param")
    reason, wait = _rpc_details(error.get("details"))
    return Detail(
        message=message,
        code=str(code) if isinstance(code, str | int) and code != "" else None,
        param=param if isinstance(param, str) else None,
        status=code if isinstance(code, int) and 400 <= code <= 599 else None,
        kind=str(error.get("type") or reason),
        wait=wait,
    )


def _rpc_details(details: Any) -> tuple[str, float | None]:
    """The `reason` of an ErrorInfo and the `retryDelay` of a RetryInfo (`"34.07s"`), as Google has
    them among the details of an error (google/rpc/error_details.proto)."""
    reason, wait = "", None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            reason = str(detail.get("reason") or reason)
            delay = detail.get("retryDelay")
            if isinstance(delay, str) and delay.endswith("s"):
                wait = _seconds(delay[:-1])
    return reason, wait


def retry_after(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds to wait as `Retry-After-Ms` or `Retry-After` say it, as a number or an HTTP date."""
    millis = _seconds(headers.get("Retry-After-Ms"))
    if millis is not None:
        return millis / 1000
    text = headers.get("Retry-After")
    seconds = _seconds(text)
    if seconds is not None or text is None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - clock.now_ns() / 1e9)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
