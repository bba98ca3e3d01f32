"""The secret that all processes of one Nexus share, and what is derived from it.

Virtual keys are kept as keyed digests, and what clients bring of their own credentials travels
sealed; each by a key of its own, derived from the secret by its purpose.
"""

import hmac

_NONCE = 12
_SHORTEST = 16


class Unsealable(Exception):
    """It was sealed with another secret, for another purpose, or it was changed on the way."""


class ServerSecret:
    """Made of `Config.secret`: the first text is used for what is new, all for what is there.

    Without any text nothing can be hashed or sealed: `available` is False then.
    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        for text in texts:
            if len(text) < _SHORTEST:
                raise ValueError(f"a server secret has at least {_SHORTEST} characters")
        self._peppers = [_derived(text, b"virtual keys") for text in texts]
        self._seals = [_derived(text, b"client credentials") for text in texts]

    @property
    def available(self) -> bool:
        return bool(self._peppers)

    @property
    def pepper_id(self) -> str:
        """Names the pepper of new keys without telling it."""
        return hmac.digest(self._peppers[0], b"id", "sha256").hex()[:8]

    def pepper_ids(self) -> tuple[str, ...]:
        """Of all peppers that are understood."""
        return tuple(hmac.digest(one, b"id", "sha256").hex()[:8] for one in self._peppers)

    def digest(self, key: bytes) -> bytes:
        """What is kept of a new key: HMAC-SHA256, 32 bytes."""
        return hmac.digest(self._peppers[0], key, "sha256")

    def digests(self, key: bytes) -> list[bytes]:
        """What a key may be found by."""
        return [hmac.digest(pepper, key, "sha256") for pepper in self._peppers]

    def seal(self, text: bytes, purpose: bytes, nonce: bytes) -> bytes:
        """AES-256-GCM; opens only with the same `purpose`. `nonce` is 12 random bytes."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return nonce + AESGCM(self._seals[0]).encrypt(nonce, text, purpose)

    def open(self, sealed: bytes, purpose: bytes) -> bytes:
        """The text. Raises Unsealable."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        for seal in self._seals:
            try:
                return AESGCM(seal).decrypt(sealed[:_NONCE], sealed[_NONCE:], purpose)
            except (InvalidTag, ValueError):
                continue
        raise Unsealable("sealed with another server secret, or changed on the way")


def credential_purpose(call_id: str, provider: str) -> bytes:
    """What a client's own key is sealed for: one call at one provider."""
    return f"{call_id}/{provider}".encode()


def _derived(text: str, purpose: bytes) -> bytes:
    return hmac.digest(text.encode(), b"nexus " + purpose, "sha256")
