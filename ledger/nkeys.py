"""NATS's own keys: an Ed25519 pair that is written as a seed, and the files it comes in."""

import base64
import binascii
import re
from pathlib import Path

_SEED = 18 << 3
_USER = 20 << 3
_SEED_BYTES = 32
_BLOCK = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END [A-Z ]+-+")


class BadNkey(ValueError):
    """What was given is not a user's key; the message never contains it."""


class Nkey:
    """A user's key pair. Raises BadNkey."""

    def __init__(self, seed: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._pair = Ed25519PrivateKey.from_private_bytes(_decoded(seed))

    @property
    def public(self) -> str:
        """What the server knows the user by: `U...`."""
        raw = bytes([_USER]) + self._pair.public_key().public_bytes_raw()
        return base64.b32encode(raw + _checksum(raw)).decode().rstrip("=")

    def sign(self, nonce: str) -> str:
        """The answer to a server's challenge."""
        return base64.urlsafe_b64encode(self._pair.sign(nonce.encode())).decode().rstrip("=")


def read_creds(path: str) -> tuple[str, Nkey]:
    """The user's JWT and key in a file as `nsc` writes it. Raises BadNkey, OSError."""
    blocks = dict(_BLOCK.findall(Path(path).read_text()))
    try:
        return blocks["NATS USER JWT"], Nkey(blocks["USER NKEY SEED"])
    except KeyError as error:
        raise BadNkey(f"no {error.args[0]} in it") from error


def _decoded(seed: str) -> bytes:
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error as error:
        raise BadNkey("a seed is base32 text that begins with SU") from error
    if len(raw) != 2 + _SEED_BYTES + 2 or _checksum(raw[:-2]) != raw[-2:]:
        raise BadNkey("it was not copied as a whole: its checksum is wrong")
    # Five bits say that it is a seed, the next eight whose.
    if raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise BadNkey("it is not the seed of a user: that begins with SU")
    return raw[2:-2]


def _checksum(raw: bytes) -> bytes:
    return binascii.crc_hqx(raw, 0).to_bytes(2, "little")
