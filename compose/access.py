"""What must hold between the settings of who may call: keys, tokens, projects, teams, budgets."""

from collections.abc import Iterator, Mapping

import msgspec

from compose.config_file import ConfigError
from compose.providers import is_http
from ledger.access.configured import id_of
from ledger.access.key_text import PREFIX
from schemas.access import BUILT_IN_TIERS, BudgetTerms, Id, Name, budget_name
from schemas.config import Config, JwtConfig, KeyConfig, ProjectConfig, TeamConfig

_Record = KeyConfig | ProjectConfig | TeamConfig

_SHORTEST_SECRET = 16
_OTHER_IDS = ("key_", "jwt_", "client_")
_HMAC = ("HS256", "HS384", "HS512")
_SIGNATURES = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA"),
)


def check(config: Config) -> None:
    """Raises ConfigError for the first contradiction, without telling any secret."""
    _check_server_secret(config)
    _check_jwt(config.jwt)
    _check_names(config)
    _check_keys(config)
    _check_policies(config)
    _check_tiers(config)
    _check_budgets(config)


def is_configured(config: Config) -> bool:
    """Whether the operator has said who may call."""
    return bool(
        config.api_keys
        or config.admin_token
        or config.keys
        or config.jwt.enabled
        or config.target_url
    )


def configured_secrets(config: Config) -> Iterator[tuple[str, str]]:
    """The text of every configured key, with its place."""
    if config.admin_token:
        yield "admin_token", config.admin_token
    for place, key in enumerate(config.api_keys):
        yield f"api_keys.{place}", key
    for key_id, entry in config.keys.items():
        yield f"keys.{key_id}.key", entry.key


def records(config: Config) -> dict[str, Mapping[str, _Record]]:
    """Keys, projects and teams by id, by their sections."""
    return {"keys": config.keys, "projects": config.projects, "teams": config.teams}


def _check_server_secret(config: Config) -> None:
    for place, text in enumerate(config.secret):
        if len(text) < _SHORTEST_SECRET:
            raise ConfigError(
                f"secret.{place}: a server secret (NEXUS_SECRET) has at least {_SHORTEST_SECRET}"
                " characters; this makes one: openssl rand -base64 32"
            )


def _check_jwt(jwt: JwtConfig) -> None:
    if jwt.jwks_url and not is_http(jwt.jwks_url):
        raise ConfigError(
            f"jwt.jwks_url: expected an http:// or https:// URL, got {jwt.jwks_url!r}"
        )
    if "PRIVATE KEY" in jwt.public_key:
        raise ConfigError("jwt.public_key: this is a private key; give the public one of the pair")
    if not jwt.algorithms:
        raise ConfigError("jwt.algorithms: expected at least one, such as HS256 or RS256")
    for place, algorithm in enumerate(jwt.algorithms):
        if algorithm.lower() == "none":
            raise ConfigError(
                f"jwt.algorithms.{place}: {algorithm!r} would accept tokens that nobody signed"
            )
        if algorithm not in (*_HMAC, *_SIGNATURES):
            known = ", ".join((*_HMAC, *_SIGNATURES))
            raise ConfigError(
                f"jwt.algorithms.{place}: unknown algorithm {algorithm!r}; known here: {known}"
            )
    _check_jwt_keys(jwt)


def _check_jwt_keys(jwt: JwtConfig) -> None:
    """Each algorithm has what it verifies with, and nothing was given that none of them uses."""
    by_secret = [one for one in jwt.algorithms if one in _HMAC]
    by_public_key = [one for one in jwt.algorithms if one in _SIGNATURES]
    public = [name for name in ("public_key", "jwks_url") if getattr(jwt, name)]
    if by_public_key and not public:
        raise ConfigError(
            f"jwt.algorithms: {by_public_key[0]} needs jwt.public_key or jwt.jwks_url"
            " (GATEWAY_JWT_PUBLIC_KEY, GATEWAY_JWT_JWKS_URL)"
        )
    if public and not by_public_key:
        raise ConfigError(
            f"jwt.algorithms: {', '.join(by_secret)} cannot use jwt.{public[0]}; name the"
            " algorithm of its key, such as RS256 or ES256 (GATEWAY_JWT_ALGORITHMS)"
        )
    if by_secret and public and not jwt.secret:
        raise ConfigError(
            f"jwt.algorithms: {by_secret[0]} needs jwt.secret (GATEWAY_JWT_SECRET); set it,"
            f" or take {by_secret[0]} out"
        )
    if jwt.secret and not by_secret:
        raise ConfigError(
            f"jwt.secret: {', '.join(by_public_key)} cannot use it; add HS256 to jwt.algorithms,"
            " or take the secret out"
        )


def _check_names(config: Config) -> None:
    for section, entries in records(config).items():
        for name in entries:
            if not name or not _is(name, Id):
                raise ConfigError(
                    f"{section}.{name[:40]!r}: an id has 1 to 128 characters, without control"
                    " characters and without spaces at its ends"
                )
    for name in config.tiers:
        if not name or not _is(name, Name):
            raise ConfigError(
                f"tiers.{name[:40]!r}: a name has 1 to 128 characters, without control characters"
            )
    for key_id in config.keys:
        if key_id == "admin" or key_id.startswith(_OTHER_IDS):
            raise ConfigError(
                f"keys.{key_id}: choose another id; admin, and all that begin with"
                f" {', '.join(_OTHER_IDS)} are taken"
            )


def _is(text: str, kind: object) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True


def _check_keys(config: Config) -> None:
    places: dict[str, str] = {}
    for place, text in configured_secrets(config):
        if not text:
            raise ConfigError(f"{place}: expected a key, got an empty text")
        if place.startswith("keys.") and not _can_be_sent(text):
            raise ConfigError(
                f"{place}: a key has letters, digits and signs only, no spaces: others do not"
                " travel well in a header"
            )
        if place != "admin_token" and text.startswith(PREFIX):
            raise ConfigError(
                f"{place}: begins with {PREFIX}, as only keys do that Nexus itself has made;"
                " choose another"
            )
        if text in places:
            raise ConfigError(
                f"{place}: the same text as {places[text]}; each key needs one of its own"
            )
        places[text] = place


def _can_be_sent(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _check_policies(config: Config) -> None:
    """The policies of document 004 come by the id of a key, never by the key itself."""
    known = {id_of(key) for key in config.api_keys}
    for place, key_id in enumerate(config.key_policies, 1):
        if key_id not in known:
            raise ConfigError(
                f"key_policies.{key_id}: policy {place} of GATEWAY_API_KEY_POLICIES is for a key"
                " that is not in GATEWAY_API_KEYS; add the key, or take the policy out"
            )


def _check_tiers(config: Config) -> None:
    known = {*BUILT_IN_TIERS, *config.tiers}
    for section, entries in records(config).items():
        for name, entry in entries.items():
            if entry.tier and entry.tier not in known:
                raise ConfigError(
                    f"{section}.{name}.tier: unknown tier {entry.tier!r}; add it under tiers:,"
                    f" or use one of {', '.join(sorted(known))}"
                )


def _check_budgets(config: Config) -> None:
    for place, budget in enumerate(config.budgets):
        if budget.scope == "global" and budget.id:
            raise ConfigError(f"budgets.{place}.id: the scope global has none; leave it out")
        if budget.scope != "global" and not budget.id:
            raise ConfigError(f"budgets.{place}.id: missing, it says for which {budget.scope}")
    places: dict[str, str] = {}
    if config.budget.daily_limit_usd is not None:
        places[budget_name("global", "", "day")] = "budget.daily_limit_usd"
    for path, scope, id, terms in _budgets(config):
        name = budget_name(scope, id, terms.period)
        if name in places:
            raise ConfigError(f"{path}: the budget {name} is there already, as {places[name]}")
        places[name] = path


def _budgets(config: Config) -> Iterator[tuple[str, str, str, BudgetTerms]]:
    """Every budget with its place, scope and id, wherever it is written."""
    for place, budget in enumerate(config.budgets):
        yield f"budgets.{place}", budget.scope, budget.id, budget
    for section, entries in records(config).items():
        for name, entry in entries.items():
            for place, terms in enumerate(entry.budgets):
                yield f"{section}.{name}.budgets.{place}", section.removesuffix("s"), name, terms
