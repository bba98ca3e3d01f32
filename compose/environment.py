"""The environment variables of all product documents, as settings with their origin."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from compose.config_file import ConfigError, PathTo
from ledger.access.configured import id_of

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

REPLACED = ("DATABASE_URL", "REDIS_URL", "GATEWAY_REDIS_URL")
LATER = (
    "HMAC_SECRET",
    "ENABLE_METRICS",
    "ENABLE_LOGGING",
)


class Setting(NamedTuple):
    """One value for the tree of settings and where it came from."""

    path: PathTo
    value: Any
    origin: str


class Variable(NamedTuple):
    name: str
    path: PathTo
    parse: Callable[[str], Any]


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"expected a whole number, got {text!r}") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"expected a number, got {text!r}") from None


def switch(text: str) -> bool:
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ConfigError(f"expected true or false, got {text!r}")


def items(text: str) -> list[str]:
    return [item for item in (part.strip() for part in text.split(",")) if item]


# A later line wins over an earlier one that sets the same.
VARIABLES = (
    Variable("PORT", ("port",), whole),
    Variable("UNIFIED_GATEWAY_PORT", ("port",), whole),
    Variable("NEXUS_PORT", ("port",), whole),
    Variable("UNIFIED_GATEWAY_HOST", ("host",), str),
    Variable("NEXUS_HOST", ("host",), str),
    Variable("NEXUS_DATA_DIR", ("data_dir",), str),
    Variable("LOG_LEVEL", ("log_level",), str.lower),
    Variable("NEXUS_LOG_LEVEL", ("log_level",), str.lower),
    Variable("NEXUS_NATS_URL", ("bus", "url"), str),
    Variable("NEXUS_NATS_USER", ("bus", "user"), str),
    Variable("NEXUS_NATS_PASSWORD", ("bus", "password"), str),
    Variable("NEXUS_NATS_CREDS", ("bus", "creds"), str),
    Variable("NEXUS_NATS_NKEY_SEED", ("bus", "nkey_seed"), str),
    Variable("NEXUS_NATS_TLS_CA", ("bus", "tls_ca"), str),
    Variable("NEXUS_NATS_TLS_CERT", ("bus", "tls_cert"), str),
    Variable("NEXUS_NATS_TLS_KEY", ("bus", "tls_key"), str),
    Variable("NEXUS_CLICKHOUSE_URL", ("clickhouse_url",), str),
    Variable("NEXUS_DRAIN_SECONDS", ("drain",), number),
    Variable("NEXUS_MOCK", ("mock_all",), switch),
    Variable("NEXUS_SECRET", ("secret",), items),
    Variable("NEXUS_TARGET_URL", ("target_url",), str),
    Variable("ADMIN_TOKEN", ("admin_token",), str),
    Variable("GATEWAY_API_KEYS", ("api_keys",), items),
    Variable("GATEWAY_REQUEST_TIMEOUT_SECONDS", ("attempt_timeout",), number),
    Variable("GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES", ("breaker", "max_failures"), whole),
    Variable("GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS", ("breaker", "reset_seconds"), number),
    Variable("GATEWAY_RATE_LIMIT_PER_MINUTE", ("limits", "requests_per_minute"), whole),
    Variable("GATEWAY_DEFAULT_UPSTREAM", ("default_provider",), str),
    Variable("GATEWAY_JWT_SECRET", ("jwt", "secret"), str),
    Variable("GATEWAY_JWT_PUBLIC_KEY", ("jwt", "public_key"), str),
    Variable("GATEWAY_JWT_JWKS_URL", ("jwt", "jwks_url"), str),
    Variable("GATEWAY_JWT_ALGORITHMS", ("jwt", "algorithms"), items),
    Variable("GATEWAY_JWT_ISSUER", ("jwt", "issuer"), str),
    Variable("GATEWAY_JWT_AUDIENCE", ("jwt", "audience"), str),
)


def defaults(env: Mapping[str, str]) -> Iterator[Setting]:
    """What document 004 sets where one of its variables is used, and nothing else says more."""
    if any(name.startswith("GATEWAY_") and env[name].strip() for name in _known() & env.keys()):
        yield Setting(("limits", "requests_per_minute"), 60, "default with GATEWAY_ variables")


def settings(env: Mapping[str, str]) -> Iterator[Setting]:
    """What the environment sets, in order of rising precedence; an empty variable sets nothing.

    Raises ConfigError, naming the variable.
    """
    for variable in VARIABLES:
        text = env.get(variable.name, "").strip()
        if not text or _is_service_link(variable.name, text):
            continue
        with_name = f"environment {variable.name}"
        yield Setting(variable.path, _parsed(variable.name, variable.parse, text), with_name)
    for name, parse in LISTS.items():
        yield from _parsed(name, parse, env.get(name, ""))


def notices(env: Mapping[str, str]) -> Iterator[str]:
    """What is set without effect: replaced, not enforced yet, or no setting of ours."""
    replaced = [name for name in REPLACED if env.get(name)]
    if replaced:
        yield f"{', '.join(replaced)}: not used, replaced by NATS and ClickHouse"
    for name in LATER:
        if env.get(name):
            yield f"{name}: accepted, not enforced by this version"
    for name in sorted(env.keys() - _known()):
        if name.startswith("GATEWAY_"):
            yield f"{name}: not a setting of Nexus, ignored"


def _known() -> set[str]:
    return {variable.name for variable in VARIABLES} | {*REPLACED, *LATER, *LISTS}


def for_child(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Settings of the command line as variables, so that a child process loads the same Config."""
    by_path = {".".join(variable.path): variable for variable in VARIABLES}
    return {
        by_path[path].name: ",".join(value) if isinstance(value, list | tuple) else str(value)
        for path, value in overrides.items()
        if value is not None
    }


def variable_for(path: PathTo) -> str | None:
    """The variable that sets a path, where there is one."""
    return next((variable.name for variable in VARIABLES if variable.path == path), None)


def _is_service_link(name: str, text: str) -> bool:
    """Kubernetes sets NEXUS_PORT=tcp://... for a service that is called nexus."""
    return name.endswith("PORT") and "://" in text


def _parsed(name: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """`name=value;name=value`."""
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value or not NAME.fullmatch(name):
            raise ConfigError(f"expected name=value;name=value, got {part!r}")
        yield name, value


def _upstreams(text: str) -> list[Setting]:
    """Each upstream is a provider and a model of the same name."""
    found: list[Setting] = []
    origin = "environment GATEWAY_UPSTREAMS"
    for name, url in _pairs(text):
        scheme, _, rest = url.partition("://")
        model = {"provider": name}
        match scheme.lower():
            case "http" | "https":
                provider = {"base_url": url}
            case "mock":
                provider = {"dialect": "mock"}
            case "litellm":
                provider = {"dialect": "litellm"}
                # The model may be part of the URL.
                model |= {"engine": rest.strip("/")} if rest.strip("/") else {}
            case _:
                raise ConfigError(
                    f"{name}: expected an http://, https://, litellm:// or mock:// URL, got {url!r}"
                )
        found.append(Setting(("providers", name), provider, origin))
        found.append(Setting(("models", name), model, origin))
    return found


def _fallbacks(text: str) -> list[Setting]:
    origin = "environment GATEWAY_FALLBACKS"
    return [
        Setting(("models", name, "fallbacks"), items(names), origin) for name, names in _pairs(text)
    ]


def _policies(text: str) -> list[Setting]:
    """Each policy by the id of its key: the key itself is a secret, and so may be what is wrong."""
    if not text.strip():
        return []
    try:
        policies = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise ConfigError(
            'expected JSON such as {"<key>": {"allowed_models": ["gpt-*"],'
            ' "rate_limit_per_minute": 30}}'
        ) from None
    origin = "environment GATEWAY_API_KEY_POLICIES"
    return [Setting(("key_policies", id_of(key)), policies[key], origin) for key in policies]


def _routes(text: str) -> list[Setting]:
    if not text.strip():
        return []
    try:
        routes = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ConfigError(
            'expected JSON such as {"chat": {"strategy": "canary", "primary": "one", "canary":'
            f' "other", "percent": 5}}: {error}'
        ) from None
    origin = "environment GATEWAY_ROUTE_POLICIES"
    return [Setting(("routes", name), routes[name], origin) for name in routes]


LISTS: dict[str, Callable[[str], list[Setting]]] = {
    "GATEWAY_UPSTREAMS": _upstreams,
    "GATEWAY_FALLBACKS": _fallbacks,
    "GATEWAY_API_KEY_POLICIES": _policies,
    "GATEWAY_ROUTE_POLICIES": _routes,
}
