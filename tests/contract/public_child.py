"""A process with a network of its own, in which one address plays the public internet.

    unshare -rn python -m tests.contract.public_child

Prints as JSON what came of fetching each URL, and what the private server was asked.
"""

import json
import socket
import subprocess
from typing import Any
from unittest.mock import patch

import uvloop
from aiohttp import web

from schemas.ids import Clock
from workers.failures import Failures
from workers.http import Http
from workers.images import image_of
from workers.providers.base import AttemptFailed

PUBLIC, PRIVATE = "93.184.216.34", "127.0.0.1"
PNG = b"\x89PNG\r\n\x1a\n"
# What the names mean, one answer after the other; the last one for ever.
NAMES = {
    "pictures.example": [PUBLIC],
    "rebinding.example": [PUBLIC, PRIVATE],
    "intranet.example": [PRIVATE],
}
REDIRECTS = {
    "/to-loopback": f"http://{PRIVATE}/secret.png",
    "/to-mapped": f"http://[::ffff:{PRIVATE}]/secret.png",
    "/to-metadata": "http://169.254.169.254/latest/meta-data",
    "/to-intranet": "http://intranet.example/secret.png",
    "/to-other-port": f"http://{PUBLIC}:8080/a.png",
    "/to-rebinding": "http://rebinding.example/a.png",
    "/to-picture": "/a.png",
}
URLS = [
    f"http://{PUBLIC}/a.png",
    "http://pictures.example/a.png",
    "http://rebinding.example/to-rebinding",
    *(f"http://{PUBLIC}{path}" for path in REDIRECTS if path != "/to-rebinding"),
]


def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
    answers = NAMES[host]
    address = answers.pop(0) if len(answers) > 1 else answers[0]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


async def serve(address: str, asked: list[str]) -> web.AppRunner:
    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        to = REDIRECTS.get(request.path)
        if to:
            return web.Response(status=302, headers={"Location": to})
        return web.Response(body=PNG, content_type="image/png")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, 80).start()
    return runner


async def fetched(url: str, http: Http) -> str:
    try:
        image = await image_of(url, http, Failures("acme", (), Clock()))
    except AttemptFailed as failure:
        return failure.info.message
    return image.media_type


def make_public() -> None:
    for command in ("link set lo up", f"addr add {PUBLIC}/32 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)


async def main() -> None:
    public: list[str] = []
    private: list[str] = []
    runners = [await serve(PUBLIC, public), await serve(PRIVATE, private)]
    http = Http(Clock(), limit=1)
    with patch.object(socket, "getaddrinfo", getaddrinfo):
        told = {url: await fetched(url, http) for url in URLS}
    await http.close()
    for runner in runners:
        await runner.cleanup()
    print(json.dumps({"told": told, "public": public, "private": private}))


if __name__ == "__main__":
    make_public()
    uvloop.run(main())
