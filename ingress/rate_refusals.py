"""What clients are told about their rates, in headers and in the error that ends a call; each such
error is one line of the log.
"""

import logging
from collections.abc import Mapping
from math import ceil

from ingress.limits import Rule
from ingress.rate_pocket import Pocket
from schemas.errors import RateLimited

log = logging.getLogger("nexus.rates")

_SHOWN = (("requests", "Requests"), ("tokens", "Tokens"))


def headers(rules: tuple[Rule, ...], pockets: Mapping[str, Pocket]) -> dict[str, str]:
    """`X-RateLimit-...` of the rate of requests, and of tokens, that has the least left."""
    found: dict[str, str] = {}
    for what, name in _SHOWN:
        least: tuple[int, Rule, Pocket] | None = None
        for rule in rules:
            if rule.what == what:
                pocket = pockets[rule.rate]
                if least is None or pocket.remaining < least[0]:
                    least = pocket.remaining, rule, pocket
        if least is not None:
            remaining, rule, pocket = least
            found[f"X-RateLimit-Limit-{name}"] = str(max(ceil(rule.limit), rule.burst))
            found[f"X-RateLimit-Remaining-{name}"] = str(max(0, remaining))
            found[f"X-RateLimit-Reset-{name}"] = str(-(-pocket.resets_ns // 1_000_000_000))
    return found


def reached(rule: Rule, wait: float, shown: dict[str, str]) -> RateLimited:
    """A limit is reached, and is not in `wait` seconds."""
    _log(rule, "reached")
    seconds = max(1, ceil(wait))
    return RateLimited(
        f"Rate limit reached ({rule.text}). Try again in {seconds} s.",
        retry_after=wait,
        extra_headers=shown,
    )


def too_large(rule: Rule, tokens: int, shown: dict[str, str]) -> RateLimited:
    """Waiting does not help: the limit is lower than what one call needs."""
    _log(rule, "too large")
    return RateLimited(
        f"The request is too large for its rate limit ({rule.text}): it needs about {tokens}"
        " tokens. Send less, or lower max_tokens.",
        should_retry=False,
        extra_headers=shown,
    )


def line_full(rule: Rule, shown: dict[str, str]) -> RateLimited:
    """Too many calls wait for their turn already."""
    _log(rule, "line full")
    return RateLimited(
        f"Too many calls wait for the same rate limit ({rule.text}). Try again later.",
        retry_after=1.0,
        extra_headers=shown,
    )


def _log(rule: Rule, why: str) -> None:
    extra = {"rate": rule.rate, "limit": rule.limit, "seconds": rule.seconds, "reason": why}
    log.info("call refused by a rate", extra=extra)
