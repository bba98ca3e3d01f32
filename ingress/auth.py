"""Who is calling: credentials of a request to a principal, by lookup in memory."""

import hashlib

import msgspec

from schemas.call import Tenant
from schemas.config import Config
from schemas.errors import Unauthenticated

Headers = list[tuple[bytes, bytes]]
OUR_PREFIX = b"nx-"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller; `admin` may see and do everything."""

    tenant: Tenant
    admin: bool = False


class Keys:
    """The configured keys, held by digest: a lookup takes the same time for any wrong key."""

    def __init__(self, config: Config) -> None:
        self._by_digest: dict[bytes, Principal] = {}
        self._lengths = {len(key.encode()) for key in (*config.api_keys, config.admin_token)}
        for key in config.api_keys:
            digest = _digest(key.encode())
            tenant = Tenant(key_id=f"key_{digest.hex()[:12]}")
            self._by_digest[digest] = Principal(tenant)
        if config.admin_token:
            admin = Principal(Tenant(key_id="admin"), admin=True)
            self._by_digest[_digest(config.admin_token.encode())] = admin

    def authenticate(self, headers: Headers) -> Principal:
        """The caller behind the first valid of X-Nexus-Token, X-API-Key, Authorization: Bearer.

        `X-Nexus-App` names the application in every event. Raises Unauthenticated.
        """
        token = api_key = bearer = app = b""
        for name, value in headers:
            if name == b"authorization":
                scheme, _, rest = value.partition(b" ")
                if scheme.lower() == b"bearer":
                    bearer = rest.strip()
            elif name == b"x-api-key":
                api_key = value.strip()
            elif name == b"x-nexus-token":
                token = value.strip()
            elif name == b"x-nexus-app":
                app = value.strip()
        for credential in (token, api_key, bearer):
            principal = self._by_digest.get(_digest(credential)) if credential else None
            if principal is not None:
                return _named(principal, app) if app else principal
        if token or api_key or bearer:
            raise Unauthenticated("The API key is not known here. Check the key you send.")
        raise Unauthenticated(
            "No API key was sent. Send it as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
            code="missing_api_key",
        )

    def hold_any(self, text: bytes) -> bool:
        """Whether a word of the text is one of these keys, or begins like any key of ours."""
        return any(
            word.startswith(OUR_PREFIX)
            or (len(word) in self._lengths and _digest(word) in self._by_digest)
            for word in text.split()
        )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _named(principal: Principal, app: bytes) -> Principal:
    name = app.decode("latin-1")[:128]
    return Principal(msgspec.structs.replace(principal.tenant, app=name), principal.admin)
