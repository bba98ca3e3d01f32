"""What must hold between settings: whoever is named somewhere exists, and nothing is half said."""

from collections.abc import Collection
from ipaddress import ip_address

from compose.access import configured_secrets, is_configured
from compose.config_file import ConfigError
from ingress.own_prices import given_costs
from ingress.routing import AUTO, Router
from ledger.budgets.windows import zone_named
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig, RoutePolicy
from schemas.globs import is_pattern, matches

DEV_KEY = "dev-key"
LONGEST_MODEL_NAME = 200


def check(config: Config, providers: Collection[str], catalog: Catalog) -> None:
    """Raises ConfigError for the first contradiction; `providers` are all names that a model may
    refer to, usable or not."""
    try:
        zone_named(config.budget_zone)
    except ValueError as error:
        raise ConfigError(f"budget_zone: {error}") from error
    for name, model in config.models.items():
        _check_model(name, model, providers)
    for name, policy in config.routes.items():
        _check_route(name, policy)
        for behind in policy.names:
            _check_known(f"routes.{name}", behind, config, providers, catalog)
    for name, model in config.models.items():
        for fallback in model.fallbacks:
            _check_known(f"models.{name}.fallbacks", fallback, config, providers, catalog)
        if not model.provider and not model.targets and name not in config.routes:
            _check_built_in(name, model, providers, catalog)
    _check_costs(config, catalog)
    for task, name in config.defaults.items():
        if name != AUTO and name not in config.routes:
            _check_known(f"defaults.{task}", name, config, providers, catalog)
    if config.default_provider and config.default_provider not in config.providers:
        known = ", ".join(config.providers)
        raise ConfigError(
            f"default_provider: {config.default_provider!r} cannot be used; one of: {known}"
        )
    if config.bus.tls_key and not config.bus.tls_cert:
        raise ConfigError("bus.tls_cert: missing, bus.tls_key is the key of a certificate")


def check_access(config: Config) -> None:
    """Whoever can reach the gateway from another machine needs a credential that the operator has
    given out, or one of his own for the provider."""
    if is_loopback(config.host):
        return
    remedy = "set GATEWAY_API_KEYS or ADMIN_TOKEN, or listen on 127.0.0.1"
    if any(text == DEV_KEY for _, text in configured_secrets(config)):
        raise ConfigError(
            f"host: {DEV_KEY!r} is known to everybody and works on loopback only, but host is"
            f" {config.host}; {remedy}"
        )
    if not is_configured(config):
        raise ConfigError(
            f"host: {config.host} can be reached from outside without a key; {remedy}"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on the host."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_model(name: str, model: ModelConfig, providers: Collection[str]) -> None:
    path = f"models.{name}"
    if not name or len(name) > LONGEST_MODEL_NAME or not name.isprintable():
        raise ConfigError(
            f"models.{name[:40]!r}: a name is 1 to {LONGEST_MODEL_NAME} printable characters"
        )
    if model.targets and (model.provider or model.engine):
        raise ConfigError(f"{path}: give either provider and engine, or targets")
    if model.targets and not any(target.weight for target in model.targets):
        raise ConfigError(f"{path}.targets: at least one weight must be above 0")
    if is_pattern(name):
        if not model.provider and not model.targets:
            raise ConfigError(f"{path}.provider: missing, it says where all these models run")
        if model.limits is not None:
            raise ConfigError(f"{path}.limits: not for a pattern; name each model that has limits")
    named = [("provider", model.provider)] if model.provider else []
    named += [
        (f"targets.{place}.provider", target.provider) for place, target in enumerate(model.targets)
    ]
    for field, provider in named:
        if provider not in providers:
            known = ", ".join(sorted(providers))
            raise ConfigError(
                f"{path}.{field}: unknown provider {provider!r}; add it under providers:,"
                f" or use one of {known}"
            )


def _check_route(name: str, policy: RoutePolicy) -> None:
    path = f"routes.{name}"
    if not name or len(name) > LONGEST_MODEL_NAME or not name.isprintable() or is_pattern(name):
        raise ConfigError(
            f"routes.{name[:40]!r}: a name is 1 to {LONGEST_MODEL_NAME} printable characters,"
            " without * and ?"
        )
    given = {field: getattr(policy, field) for field in ("targets", "primary", "canary", "percent")}
    wanted = {"targets"} if policy.strategy == "weighted" else given.keys() - {"targets"}
    for field, value in given.items():
        is_given = value is not None and value not in ("", ())
        if is_given and field not in wanted:
            raise ConfigError(f"{path}.{field}: not for the strategy {policy.strategy}")
        if field in wanted and not is_given:
            raise ConfigError(f"{path}.{field}: missing, the strategy {policy.strategy} needs it")
    if len(set(policy.names)) < len(policy.names):
        raise ConfigError(f"{path}: a target is named twice")
    if policy.strategy == "weighted" and not any(target.weight for target in policy.targets):
        raise ConfigError(f"{path}.targets: at least one weight must be above 0")


def _check_costs(config: Config, catalog: Catalog) -> None:
    """What an entry does not say of a price has to be in the price book."""
    routes = Router(config, catalog)
    for name, model in config.models.items():
        given = given_costs(model)
        if not given or given.keys() >= {"input", "output"}:
            continue
        for provider, engine in routes.places(name):
            if routes.book_price(name, provider, engine) is None:
                missing = "output" if "input" in given else "input"
                raise ConfigError(
                    f"models.{name}.{missing}_cost: missing, and the price book does not know"
                    f" {engine!r} of {provider}; give both input_cost and output_cost"
                )


def _check_known(
    path: str, name: str, config: Config, providers: Collection[str], catalog: Catalog
) -> None:
    prefix, slash, engine = name.partition("/")
    if name in config.models or (slash and engine and prefix in providers):
        return
    if any(is_pattern(pattern) and matches(pattern, name) for pattern in config.models):
        return
    if not is_built_in(name, catalog):
        raise ConfigError(f"{path}: unknown model {name!r}; add it under models:")


def _check_built_in(
    name: str, model: ModelConfig, providers: Collection[str], catalog: Catalog
) -> None:
    engine = model.engine or name
    prefix, slash, rest = engine.partition("/")
    if not is_built_in(engine, catalog) and not (slash and rest and prefix in providers):
        raise ConfigError(f"models.{name}.provider: missing, and no built-in model is {engine!r}")


def is_built_in(name: str, catalog: Catalog) -> bool:
    """Whether the catalog knows the name, by itself or from a vendor's price list."""
    return catalog.facts(name) is not None or any(
        catalog.listed(vendor, name) is not None for vendor in catalog.vendors
    )
