"""Certificates, nkeys and user credentials for a bus of the test's own."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

_SEED = 18 << 3
KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


class Pair:
    """An nkey of any kind, made from a number, as the public tools write it."""

    def __init__(self, kind: str, number: int) -> None:
        self._kind = KINDS[kind]
        self._raw = hashlib.sha256(f"{kind} {number}".encode()).digest()
        self._key = Ed25519PrivateKey.from_private_bytes(self._raw)

    @property
    def seed(self) -> str:
        return _base32(bytes([_SEED | self._kind >> 5, (self._kind & 31) << 3]) + self._raw)

    @property
    def public(self) -> str:
        return _base32(bytes([self._kind]) + self._key.public_key().public_bytes_raw())

    def claim(self, subject: "Pair", name: str, nats: dict[str, Any], **more: Any) -> str:
        """A JWT in which this pair says something of another."""
        claims = {"iss": self.public, "sub": subject.public, "name": name, "iat": 1, **more}
        claims["nats"] = {"version": 2, **nats}
        claims["jti"] = _base32(hashlib.sha256(json.dumps(claims).encode()).digest())
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{_base64(self._key.sign(text.encode()))}"


def _base32(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def creds(jwt: str, user: Pair) -> str:
    """The text of a file of credentials, as `nsc` writes it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )


@dataclass(frozen=True)
class Certificate:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority of one's own, and what it has signed."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._name, self._key.public_key())
        ca = x509.BasicConstraints(ca=True, path_length=None)
        self.own = self._written(name, builder.add_extension(ca, critical=True), self._key)

    def certificate(self, name: str) -> Certificate:
        """One for a server at 127.0.0.1 or for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        builder = self._builder(subject, key.public_key()).add_extension(here, critical=False)
        return self._written(name, builder, key)

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> Any:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def _written(self, name: str, builder: Any, key: ec.EllipticCurvePrivateKey) -> Certificate:
        files = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        signed = builder.sign(self._key, hashes.SHA256())
        files.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files
