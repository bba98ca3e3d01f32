"""Somebody else who issues tokens: keys of every kind, signatures, and a JWKS address."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.sample_events import NOON, SECOND

ISSUER = "https://issuer.example"
AUDIENCE = "nexus"
SHARED = "a shared secret of at least sixty-four bytes, which HS512 does ask for"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

Mood = Literal["serve", "fail", "hang", "redirect", "endless", "garbage"]


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that are good at noon; None takes one away."""
    now = NOON // SECOND
    said = {
        "sub": "ann",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def signed(said: Any = None, key: Any = SHARED, algorithm: str = "HS256", **headers: Any) -> str:
    """A token; `said` may be anything that JSON can say, or bytes as they are."""
    said = claims() if said is None else said
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    return jwt.PyJWS().encode(payload, key, algorithm, headers)


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def private_pem(key: Any) -> str:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode()


def jwk(key: Any, kid: str | None, *, private: bool = False, **more: str) -> dict[str, str]:
    """The public half as the issuer publishes it, or by mistake all of it."""
    kinds = {
        rsa.RSAPrivateKey: "RS256",
        ec.EllipticCurvePrivateKey: "ES256",
        ed25519.Ed25519PrivateKey: "EdDSA",
    }
    name = next(name for kind, name in kinds.items() if isinstance(key, kind))
    document = (
        jwt.PyJWS()
        .get_algorithm_by_name(name)
        .to_jwk(key if private else key.public_key(), as_dict=True)
    )
    named = {} if kid is None else {"kid": kid}
    return {**document, **named, **more}


class JwksServer:
    """A real HTTP server with one document; what it does is up to its mood."""

    def __init__(self, *keys: Mapping[str, str]) -> None:
        self.keys: list[Any] = list(keys)
        self.mood: Mood = "serve"
        self.asked = 0
        self.url = ""
        self.hung = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            body = json.dumps({"keys": self.keys}).encode()
            if self.mood == "hang":
                self.hung.set()
                await reader.read()
            elif self.mood == "fail":
                writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
            elif self.mood == "redirect":
                head = f"HTTP/1.1 302 Found\r\nlocation: {self.url}?again\r\n"
                writer.write(head.encode() + b"content-length: 0\r\n\r\n")
            elif self.mood == "endless":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body + b" " * 4_000_000)
            else:
                body = b'{"keys": 7}' if self.mood == "garbage" else body
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def jwks_server(*keys: Mapping[str, str]) -> AsyncIterator[JwksServer]:
    """An issuer's JWKS address, on a port of its own."""
    issuer = JwksServer(*keys)
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    try:
        yield issuer
    finally:
        server.close()
        await server.wait_closed()
