"""Requests and answers as bytes on a socket, for tests of what no HTTP client would send."""

import socket

import httpx

from tests.flow.bad_input.bodies import GOOD
from tests.flow.gateway import KEY

AUTH = f"Authorization: Bearer {KEY}\r\n".encode()


def head(*lines: bytes, start: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: x", AUTH + b"".join(line + b"\r\n" for line in lines)])


def sized(size: bytes | int, *lines: bytes, body: bytes = GOOD, **start: bytes) -> bytes:
    length = size if isinstance(size, bytes) else b"%d" % size
    return head(b"Content-Length: " + length, *lines, **start) + b"\r\n" + body


def chunks(body: bytes = GOOD, *lines: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked", *lines) + b"\r\n" + in_chunks(body)


def in_chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def rest(line: socket.socket) -> bytes:
    received = []
    while data := line.recv(65536):
        received.append(data)
    return b"".join(received)


def answers(received: bytes) -> list[httpx.Response]:
    """Whole responses, one after the other, each with its length given."""
    found = []
    while received:
        lines, _, received = received.partition(b"\r\n\r\n")
        status, *headers = lines.split(b"\r\n")
        fields = [(name, value.strip()) for name, _, value in (h.partition(b":") for h in headers)]
        size = int(next(value for name, value in fields if name.lower() == b"content-length"))
        body, received = received[:size], received[size:]
        found.append(httpx.Response(int(status.split()[1]), headers=fields, content=body))
    return found
