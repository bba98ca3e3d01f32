"""What the operator should know of a configuration that works: what is weak, what has no effect."""

from pathlib import Path
from urllib.parse import urlsplit

from compose.config_file import Tree
from compose.consistency import is_loopback
from ingress.routing import Router
from schemas.config import Config, JwtConfig
from schemas.globs import is_pattern

NO_SECRET = (
    "NEXUS_SECRET: not set; virtual keys and keys that clients bring need it, the same for all"
    " roles (`nexus up` makes one)"
)
_LATER = frozenset({"fallback_delay_ms", "cache_enabled", "cache_ttl_seconds"})
_LONG_KEY = 16
_LONG_JWT_SECRET = 32


def notices(config: Config, tree: Tree, router: Router) -> list[str]:
    """One line each; `tree` has what was set, whatever its value."""
    return [
        *([] if config.secret else [NO_SECRET]),
        *_weak(config),
        *_token_keys(config.jwt),
        *_loops(config),
        *_not_available(router),
        *_not_enforced(tree),
    ]


def _weak(config: Config) -> list[str]:
    found = []
    if short := [f"keys.{id}.key" for id, one in config.keys.items() if len(one.key) < _LONG_KEY]:
        found.append(f"{', '.join(short)}: shorter than {_LONG_KEY} characters, easy to guess")
    if config.jwt.secret and len(config.jwt.secret) < _LONG_JWT_SECRET:
        found.append(
            f"jwt.secret: shorter than {_LONG_JWT_SECRET} characters, so whoever has a token can"
            " guess it"
        )
    return found


def _token_keys(jwt: JwtConfig) -> list[str]:
    """The file of a public key need only be where tokens are looked at, so it is no error here."""
    if not jwt.enabled and (jwt.issuer or jwt.audience):
        return ["jwt: no token is accepted without secret, public_key or jwks_url"]
    if jwt.public_key and "-----BEGIN" not in jwt.public_key and not _is_file(jwt.public_key):
        return ["jwt.public_key: neither a key as PEM text nor a file that can be found here"]
    return []


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _loops(config: Config) -> list[str]:
    """Providers whose address looks like this gateway's own."""
    return [
        f"providers.{name}.base_url: {provider.base_url} looks like this gateway itself"
        for name, provider in config.providers.items()
        if _is_here(provider.base_url, config.port)
    ]


def _is_here(base_url: str, port: int) -> bool:
    parts = urlsplit(base_url)
    return bool(parts.port) and parts.port == port and is_loopback(parts.hostname or "")


def _not_available(router: Router) -> list[str]:
    """Configured models and fallbacks that no usable provider answers, by what they lack."""
    lacking: dict[str, list[str]] = {}
    for name, model in router.config.models.items():
        if not (is_pattern(name) or _has_a_place(name, router)):
            lacking.setdefault(router.remedy(name), []).append(f"models.{name}")
        for fallback in model.fallbacks:
            if not _has_a_place(fallback, router):
                path = f"models.{name}.fallbacks.{fallback}"
                lacking.setdefault(router.remedy(fallback), []).append(path)
    for name, policy in router.config.routes.items():
        for behind in policy.names:
            if not _has_a_place(behind, router):
                lacking.setdefault(router.remedy(behind), []).append(f"routes.{name}.{behind}")
    return [f"{', '.join(paths)}: not available, {remedy}" for remedy, paths in lacking.items()]


def _has_a_place(name: str, router: Router) -> bool:
    """Whether a name can run, be it only with a key that the client brings."""
    return router.target(name) is not None or any(
        provider in router.config.providers for provider, _ in router.places(name)
    )


def _not_enforced(tree: Tree) -> list[str]:
    """What is read, and left to a later version."""
    later = [f"router.{key}" for key in tree.get("router") or () if key in _LATER]
    return [f"{', '.join(later)}: accepted, not enforced by this version"] if later else []
