"""Price books from outside: of the installed `genai-prices` package, of a file or of an address."""

import ipaddress
import json
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from compose.commands import Failed
from schemas.prices import BrokenPrices, PriceBook

_LARGEST = 64 * 1024 * 1024
_LONGEST = 60.0
_HOPS = 3
_REDIRECTS = (301, 302, 303, 307, 308)


class _Ours(msgspec.Struct):
    """Our own format, its prices left as they are."""

    source: str
    version: str
    license: str
    providers: msgspec.Raw
    made: str = ""


def price_text(source: str | None, made: str) -> bytes:
    """A price file in our format, made at a time (RFC 3339), from a source: a path, an https URL,
    or None for the installed package. Raises Failed."""
    if source is None:
        return _converted("genai-prices", lambda conversion: conversion.packaged(made))
    data = _fetched(source) if "://" in source else _read(source)
    if data.lstrip().startswith(b"["):
        return _converted(source, lambda conversion: conversion.price_file(made, _listed(data)))
    return _ours(data, source, made)


def book_of(text: bytes, source: str) -> PriceBook:
    """A sound book, or Failed."""
    try:
        return PriceBook.checked(text)
    except BrokenPrices as error:
        raise Failed(f"{source}: {error}") from error


def _converted(source: str, convert: Callable[[Any], str]) -> bytes:
    """What genai-prices says in its own words, in our format; its package reads them."""
    if find_spec("genai_prices") is None:
        raise Failed(
            "the package genai-prices is not installed here: install it"
            " (`pip install genai-prices`), or name a price file by --from"
        )
    try:
        return convert(import_module("compose.generate_catalog")).encode()
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise Failed(
            f"{source}: cannot be read as prices of genai-prices: {reason};"
            " another version of that package may understand it"
        ) from error


def _listed(data: bytes) -> Any:
    """The list of providers that genai-prices publishes, read as it reads its own updates."""
    return import_module("genai_prices.types")._providers_from_raw(json.loads(data))


def _ours(data: bytes, source: str, made: str) -> bytes:
    """Our own format as it is, made now."""
    try:
        file = msgspec.json.decode(data, type=_Ours)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Failed(f"{source}: no price file: {error}") from error
    file.made = made
    return msgspec.json.encode(file)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror or error}") from error
    return _bounded(data, path)


def _bounded(data: bytes, source: str) -> bytes:
    if len(data) > _LARGEST:
        raise Failed(f"{source}: larger than {_LARGEST // 1024 // 1024} MB, which is no price file")
    return data


def _fetched(url: str) -> bytes:
    """What an address answers, up to a size and within a minute; redirects are checked too."""
    end = time.monotonic() + _LONGEST
    try:
        with httpx.Client(timeout=httpx.Timeout(20.0, connect=5.0)) as http:
            for _ in range(_HOPS + 1):
                _require_safe(url)
                with http.stream("GET", url) as response:
                    if response.status_code in _REDIRECTS and "location" in response.headers:
                        url = urljoin(url, response.headers["location"])
                        continue
                    if response.status_code != httpx.codes.OK:
                        raise Failed(f"{url}: answered with status {response.status_code}")
                    return _body(response, url, end)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Failed(f"{url}: {error or type(error).__name__}") from error
    raise Failed(f"{url}: redirected more than {_HOPS} times")


def _body(response: httpx.Response, url: str, end: float) -> bytes:
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > _LARGEST:
            break
        if time.monotonic() > end:
            raise Failed(f"{url}: took longer than {_LONGEST:.0f} s")
    return _bounded(bytes(data), url)


def _require_safe(url: str) -> None:
    """Prices decide over money: nobody on the way may change them."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    raise Failed(f"{url}: only https is trusted with prices (http from this machine alone)")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
