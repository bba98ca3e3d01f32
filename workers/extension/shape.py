"""The shape of a provider class of document 001: what its methods take, and what it is made of."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from schemas.config import SECRET_OPTIONS, ProviderConfig, Unusable
from workers.headers import without_account

# What `**kwargs` stands for. Everything else is passed to who names it: a class may hand its
# kwargs on to a library, and a client must not say where that goes, or with which key.
_PARAMETERS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
_SETTINGS = ("api_key", "base_url", "headers", "region")
_A_CLIENTS = "the client's own"


class Shape(NamedTuple):
    """`takes` are the parameters of a request by method; `counts` and `takes_keys` say whether it
    counts tokens, and can be made with another key. `make` makes one, for the gateway's key (empty)
    or for a client's."""

    takes: dict[str, frozenset[str]]
    counts: bool
    takes_keys: bool
    make: Callable[[str], Any]

    @classmethod
    def of(cls, given: type, name: str, config: ProviderConfig) -> "Shape":
        """Raises Unusable for a class that is none of a provider, or does not take the settings."""
        takes = {method: _taken(given, method) for method in ("complete", "stream")}
        parameters, takes_any = _parameters(given)
        _check_settings(given, name, config, parameters, takes_any=takes_any)

        def make(client_key: str) -> Any:
            offered = _offered(config, parameters, client_key)
            return given(**offered)

        return cls(
            takes,
            callable(getattr(given, "count_tokens", None)),
            takes_any or "api_key" in parameters,
            make,
        )


def _taken(given: type, method: str) -> frozenset[str]:
    function = getattr(given, method, None)
    if not callable(function):
        raise Unusable(f"its {given.__name__} has no method {method}(self, messages, model, ...)")
    signature = inspect.signature(function)
    try:
        signature.bind("self", "messages", "model")
    except TypeError:
        expected = f"{method}(self, messages, model, **kwargs)"
        raise Unusable(
            f"its {given.__name__}.{method}{signature} cannot be called as {expected}"
        ) from None
    named = list(signature.parameters.values())[3:]
    names = frozenset(one.name for one in named if one.kind is not one.VAR_KEYWORD)
    return names | _PARAMETERS if any(one.kind is one.VAR_KEYWORD for one in named) else names


def _parameters(given: type) -> tuple[dict[str, bool], bool]:
    """What the constructor takes by name, with whether it needs it; whether it takes any name."""
    try:
        parameters = inspect.signature(given).parameters.values()
    except ValueError:
        return {}, False
    named = {
        one.name: one.default is one.empty
        for one in parameters
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    return named, any(one.kind is one.VAR_KEYWORD for one in parameters)


def _check_settings(
    given: type, name: str, config: ProviderConfig, parameters: dict[str, bool], *, takes_any: bool
) -> None:
    key = _A_CLIENTS if config.client_keys == "required" else ""
    offered = _offered(config, parameters, key)
    for setting in offered:
        if setting not in parameters and not takes_any:
            takes = ", ".join(parameters) or "no settings"
            raise Unusable(f"{_place(name, setting)}: {given.__name__}() takes {takes}")
    for setting, needed in parameters.items():
        if needed and setting not in offered:
            raise Unusable(f"{_place(name, setting)}: missing, {given.__name__}() needs it")


def _offered(
    config: ProviderConfig, parameters: dict[str, bool], client_key: str
) -> dict[str, Any]:
    """The settings that are set, as arguments. With a client's own key nothing goes along that is
    of the gateway's account."""
    options, headers = dict(config.options), dict(config.headers)
    if client_key:
        options = {name: text for name, text in options.items() if name not in SECRET_OPTIONS}
        headers = without_account(headers, config.api_key)
    values = (client_key or config.api_key, config.base_url, headers, config.region)
    settings = {name: value for name, value in zip(_SETTINGS, values, strict=True) if value}
    if "options" in parameters:
        return {**settings, "options": options}
    return {**options, **settings}


def _place(provider: str, setting: str) -> str:
    if setting in _SETTINGS or setting == "options":
        return f"providers.{provider}.{setting}"
    return f"providers.{provider}.options.{setting}"
