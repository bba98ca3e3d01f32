"""Images for dialects that take bytes alone: decoded from data: URLs, or fetched within limits.

What is wrong with an image is the client's to mend: every failure is a 400 for `messages`.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import aiohttp
from aiohttp import hdrs
from yarl import URL

from schemas.config import MEGABYTE
from workers.failures import Failures
from workers.http import Http
from workers.providers.base import AttemptFailed
from workers.public import NotPublic

LARGEST = 20 * MEGABYTE
FETCHED_BYTES = 48 * MEGABYTE
FETCHED_COUNT = 64
FETCH_WITHIN = 10.0
FETCH_ALL_WITHIN = 30.0
_AT_ONCE = 8
_REDIRECTS = 3
_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_PORTS = frozenset({80, 443})
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream", "text/plain"})
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), "image/bmp"),
)
_INSTEAD = "Send it as a data: URL, or at an address from where anyone may fetch it."


class Image(NamedTuple):
    """`media_type` in small letters without parameters; `data` is base64."""

    media_type: str
    data: str


class _Room:
    """How many bytes more the images of one request may have."""

    def __init__(self, left: int) -> None:
        self.left = left


class _Unusable(Exception):
    """What is wrong with an image, as the end of a sentence about it."""


async def image_of(url: str, http: Http, failures: Failures, *, private: bool = False) -> Image:
    """The image at a data:, http: or https: URL.

    Fetched are at most 20 MB within 10 s, over at most 3 redirects, from public addresses at their
    usual ports. `private` lifts the last two limits: a provider's option `fetch_private`. Raises
    AttemptFailed (400).
    """
    return await _image(url, http, failures, private, _Room(LARGEST))


async def images_of(
    urls: Iterable[str], http: Http, failures: Failures, *, private: bool = False
) -> dict[str, Image]:
    """All images of one request by their URLs, each fetched once, several at a time.

    As `image_of`; together 64 may be fetched, 48 MB, within 30 s.
    """
    wanted = list(dict.fromkeys(urls))
    if sum(not _is_data(url) for url in wanted) > FETCHED_COUNT:
        raise failures.unsendable(
            f"More than {FETCHED_COUNT} images would have to be fetched for {failures.provider}:"
            " send fewer, or send them as data: URLs.",
            "messages",
        )
    room = _Room(FETCHED_BYTES)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(url: str) -> Image:
        async with turns:
            return await _image(url, http, failures, private, room)

    tasks = [asyncio.create_task(in_turn(url)) for url in wanted]
    try:
        async with asyncio.timeout(FETCH_ALL_WITHIN):
            return dict(zip(wanted, await asyncio.gather(*tasks), strict=True))
    except TimeoutError as error:
        raise failures.unsendable(
            f"The images were not all fetched within {FETCH_ALL_WITHIN:.0f} seconds: send fewer,"
            " or send them as data: URLs.",
            "messages",
        ) from error
    finally:
        for task in tasks:
            task.cancel()


def from_data_url(url: str, failures: Failures) -> Image:
    """Whatever a data: URL holds, with the media type that it says (else `text/plain`).

    Raises AttemptFailed (400).
    """
    try:
        return _decoded(url)
    except _Unusable as error:
        raise failures.unsendable(f"The data: URL {error}", "messages") from error


def fetches_private(name: str, options: dict[str, str]) -> bool:
    """A provider's option `fetch_private`. Raises ValueError for what is neither true nor false."""
    value = options.get("fetch_private", "false").lower()
    if value not in ("true", "false"):
        raise ValueError(
            f"providers.{name}.options.fetch_private: expected true or false, got {value!r}"
        )
    return value == "true"


async def _image(url: str, http: Http, failures: Failures, private: bool, room: _Room) -> Image:
    try:
        if _is_data(url):
            return _typed(_decoded(url))
        async with asyncio.timeout(FETCH_WITHIN):
            return _typed(await _fetched(url, http.fetching(private=private), private, room))
    except _Unusable as error:
        raise _refused(url, str(error), failures) from error
    except TimeoutError as error:
        why = f"could not be fetched within {FETCH_WITHIN:.0f} seconds. {_INSTEAD}"
        raise _refused(url, why, failures) from error


def _refused(url: str, why: str, failures: Failures) -> AttemptFailed:
    """Says which image by the start of its URL, without what may be secret in it."""
    shown = re.split("[,?#]", url, maxsplit=1)[0].encode("ascii", "backslashreplace").decode()
    shown = re.sub("//.*@", "//", shown)
    shown = shown if len(shown) <= 100 else f"{shown[:99]}…"
    return failures.unsendable(f"The image '{shown}' {why}", "messages")


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _decoded(url: str) -> Image:
    """RFC 2397: `data:[type][;parameters][;base64],data`."""
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise _Unusable("has no data: expected data:<type>;base64,<data>.")
    media_type, *parameters = (part.strip().lower() for part in head.split(";"))
    try:
        if "base64" not in parameters:
            data = base64.b64encode(unquote_to_bytes(data)).decode()
        else:
            if "%" in data:
                data = unquote_to_bytes(data).decode("ascii")
            data = "".join(data.split())
            binascii.a2b_base64(data, strict_mode=True)
    except ValueError as error:
        raise _Unusable("is not encoded as it says. Encode it anew, in base64.") from error
    if len(data) % 4:
        raise _Unusable("has base64 of a wrong length. Encode it anew.")
    if not data:
        raise _Unusable("is empty.")
    if len(data) * 3 // 4 > LARGEST:
        raise _Unusable(_too_large())
    return Image(media_type or "text/plain", data)


def _typed(image: Image) -> Image:
    """With the type that its first bytes show if none is said. Raises _Unusable for no image."""
    media_type, data = image
    if media_type in _UNTYPED:
        start = base64.b64decode(data[:32])
        media_type = next((kind for magic, kind in _MAGIC if magic.match(start)), media_type)
    if media_type == "image/jpg":
        media_type = "image/jpeg"
    if not media_type.startswith("image/") or not _MEDIA_TYPE.fullmatch(media_type):
        raise _Unusable("is not an image that we know. Send a PNG, JPEG, GIF or WebP image.")
    return Image(media_type, data)


async def _fetched(url: str, session: aiohttp.ClientSession, private: bool, room: _Room) -> Image:
    try:
        to = _judged(URL(url), private)
        for _ in range(_REDIRECTS + 1):
            async with session.get(to, allow_redirects=False, raise_for_status=False) as response:
                if response.status not in _REDIRECTED:
                    return await _body(response, room)
                to = _judged(to.join(URL(response.headers.get(hdrs.LOCATION, ""))), private)
    except NotPublic as error:
        raise _Unusable(f"is at no public address. {_INSTEAD}") from error
    except (aiohttp.ClientConnectorDNSError, ValueError) as error:
        raise _Unusable(f"is at no address that is known. {_INSTEAD}") from error
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise _Unusable(f"could not be fetched from its server. {_INSTEAD}") from error
    raise _Unusable(f"is behind more than {_REDIRECTS} redirects. Send the URL that they lead to.")


def _judged(url: URL, private: bool) -> URL:
    """The URL if we may ask there, as far as it shows by itself."""
    if url.scheme not in ("http", "https") or not url.host:
        raise _Unusable("has no URL that we can fetch: expected a data:, https: or http: URL.")
    if url.user is not None or url.password is not None:
        raise _Unusable(f"has a name or password in its URL. {_INSTEAD}")
    if not private and url.port not in _PORTS:
        raise _Unusable(f"is at port {url.port}, where we do not fetch. {_INSTEAD}")
    return url.with_fragment(None)


async def _body(response: aiohttp.ClientResponse, room: _Room) -> Image:
    if response.status != 200:
        raise _Unusable(
            f"could not be fetched: its server answered with status {response.status}. {_INSTEAD}"
        )
    if response.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise _Unusable(f"came compressed from its server, unasked. {_INSTEAD}")
    if (response.content_length or 0) > LARGEST:
        raise _Unusable(_too_large())
    blocks: list[bytes] = []
    size = 0
    while block := await response.content.readany():
        blocks.append(block)
        size += len(block)
        room.left -= len(block)
        if size > LARGEST:
            raise _Unusable(_too_large())
        if room.left < 0:
            raise _Unusable(
                f"is too much: the images of a request may be {FETCHED_BYTES // MEGABYTE} MB"
                " together. Send fewer or smaller ones."
            )
    if not size:
        raise _Unusable(f"is empty at its server. {_INSTEAD}")
    media_type = response.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    return Image(media_type, base64.b64encode(b"".join(blocks)).decode())


def _too_large() -> str:
    return f"is larger than {LARGEST // MEGABYTE} MB. Send a smaller one."
