"""The keys that clients bring of their own: opened for one attempt each, and told to nobody."""

import logging
from collections.abc import Mapping

from ledger.secret import ServerSecret, Unsealable, credential_purpose
from schemas.call import Call
from schemas.config import ProviderConfig
from schemas.errors import ErrorInfo
from workers.causes import SECRET_MISMATCH, key_missing

log = logging.getLogger("nexus.worker")


class KeyUnusable(Exception):
    """There is no key to ask the provider with; `info` is what the client sees."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


class ClientKeys:
    """Opens what an ingress with the same server secret has sealed."""

    def __init__(self, secret: ServerSecret, providers: Mapping[str, ProviderConfig]) -> None:
        self._secret = secret
        self._required = frozenset(
            name for name, config in providers.items() if config.client_keys == "required"
        )

    def of_target(self, call: Call) -> str:
        """The client's own key for the call's present target; empty: the gateway's is used.

        Raises KeyUnusable for a key that cannot be opened here, and for none where one is required.
        """
        provider = call.target.provider
        sealed = call.credentials.get(provider)
        if sealed is None:
            if provider in self._required:
                raise KeyUnusable(key_missing(provider))
            return ""
        try:
            opened = self._secret.open(sealed, credential_purpose(call.id, provider))
        except Unsealable:
            log.error(
                "a client's own key cannot be opened: is NEXUS_SECRET that of the ingress?",
                extra={"call_id": call.id, "provider": provider},
            )
            raise KeyUnusable(SECRET_MISMATCH) from None
        # As the header came; a decoder that can fail would quote the key in its error.
        return opened.decode("latin-1")
