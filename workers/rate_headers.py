"""When a provider's rate limit is over, as its headers tell where it sends no Retry-After."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

_RESET = re.compile(
    r"(?:x-ratelimit-reset(?:-(?P<of>[a-z-]+))?|anthropic-ratelimit-(?P<its>[a-z-]+)-reset)"
)
# Of a Go duration such as `6m0s` or `20ms`; the units that are written with two letters first.
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_A_MOMENT = 1e9
_IN_MILLISECONDS = 1e12


def reset_after(headers: Mapping[str, str], now_ns: int) -> float | None:
    """Seconds until the last of the exhausted limits is whole again; None if no header tells.

    Understood are `x-ratelimit-reset-requests: 6m0s` with its `-remaining-` (OpenAI, Groq; Azure in
    plain seconds), `anthropic-ratelimit-tokens-reset` as RFC 3339 time with its `-remaining`, and
    a plain `x-ratelimit-reset` (seconds, or Unix time in seconds or milliseconds: OpenRouter). A
    limit of which something remains is not what refused. `headers` may be of any case.
    """
    found = {name.lower(): text for name, text in headers.items()}
    waits = [_seconds(text, now_ns) for text in _resets_of_exhausted(found)]
    return max((wait for wait in waits if wait is not None), default=None)


def _resets_of_exhausted(headers: Mapping[str, str]) -> Iterator[str]:
    for name, text in headers.items():
        match = _RESET.fullmatch(name)
        if match is None:
            continue
        if match["its"]:
            counter = f"anthropic-ratelimit-{match['its']}-remaining"
        else:
            counter = "-".join(filter(None, ("x-ratelimit-remaining", match["of"])))
        remaining = headers.get(counter, "0").strip()
        if not remaining.strip("0.-"):
            yield text.strip()


def _seconds(text: str, now_ns: int) -> float | None:
    """What a header says, as seconds from now; never below zero."""
    now = now_ns / 1e9
    if re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", text):
        number = float(text)
        if number >= _IN_MILLISECONDS:
            return max(0.0, number / 1e3 - now)
        return max(0.0, number - now) if number >= _A_MOMENT else number
    parts = _PART.findall(text)
    if parts and "".join(map("".join, parts)) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
