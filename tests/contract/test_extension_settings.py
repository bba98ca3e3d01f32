"""How a provider of another package is found, loaded and made, and what is said if it cannot be."""

import sys
from pathlib import Path
from typing import Any

import pytest

from compose.settings import ConfigError
from schemas.config import ProviderConfig, Unusable
from schemas.ids import Clock
from tests.contract.openai_stage import KEY
from tests.contract.provider_contract import CLIENT_KEY, ask_of, outcome, read
from tests.given_settings import from_yaml
from tests.plugin import Plugins, message, provider_class
from workers.extension import wrapped
from workers.http import Http
from workers.providers import dialects, make, objection


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# What it is made with.


async def test_the_constructor_gets_the_settings_by_name(plugins: Plugins) -> None:
    provider = plugins.make(
        provider_class("return repr(self.given)", init=", base_url, *, api_key, zone, region=None"),
        api_key=KEY,
        base_url="http://there",
        options={"zone": "b"},
    )
    expected = {"base_url": "http://there", "api_key": KEY, "zone": "b", "region": None}
    said = message(await provider.complete(ask_of()))["content"]
    assert said == repr(expected).replace(KEY, KEY)


async def test_the_constructor_may_take_all_options_at_once(plugins: Plugins) -> None:
    provider = plugins.make(
        provider_class("return repr(self.given)", init=", options"), options={"zone": "b"}
    )
    said = message(await provider.complete(ask_of()))["content"]
    assert said == repr({"options": {"zone": "b"}})


@pytest.mark.parametrize(
    ("init", "settings", "complaint"),
    [
        ("", {"base_url": "http://x"}, r"providers\.mine\.base_url: Acme\(\) takes no settings"),
        (", zone", {"options": {"zoen": "b"}}, r"options\.zoen: Acme\(\) takes zone"),
        (", api_key", {}, r"providers\.mine\.api_key: missing, Acme\(\) needs it"),
        (", zone", {}, r"providers\.mine\.options\.zone: missing, Acme\(\) needs it"),
    ],
)
async def test_a_setting_that_does_not_fit_is_named(
    plugins: Plugins, init: str, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(Unusable, match=complaint) as caught:
        plugins.make(provider_class(init=init), **settings)
    assert "of package acme-nexus)" in str(caught.value)


async def test_a_clients_own_key_makes_an_instance_without_the_gateways_account(
    plugins: Plugins,
) -> None:
    init = ", api_key, headers=None, zone='', access_token=''"
    provider = plugins.make(
        provider_class("return repr(self.given)", "yield repr(self.given)", init=init),
        api_key=KEY,
        headers={"X-Org": "ours", "X-Api-Key": "theirs"},
        options={"zone": "b", "access_token": "the-operators"},
    )
    expected = {
        "api_key": CLIENT_KEY,
        "headers": {"X-Org": "ours"},
        "zone": "b",
        "access_token": "",
    }
    own = ask_of()._replace(credential=CLIENT_KEY)
    assert message(await provider.complete(own))["content"] == repr(expected)
    told = await read(provider, own._replace(stream=True))
    assert told.text() == repr(expected)
    assert KEY in message(await provider.complete(ask_of()))["content"]


async def test_a_class_without_a_key_takes_none_of_a_client(plugins: Plugins) -> None:
    provider = plugins.make(provider_class())
    failure = await outcome(provider, ask_of()._replace(credential=CLIENT_KEY))
    assert failure.info.status == 400 and CLIENT_KEY not in failure.info.message


async def test_where_only_clients_have_keys_none_is_needed_at_start(plugins: Plugins) -> None:
    provider = plugins.make(
        provider_class("return self.given['api_key']", init=", api_key"), client_keys="required"
    )
    answer = await provider.complete(ask_of()._replace(credential=CLIENT_KEY))
    assert message(answer)["content"] == CLIENT_KEY


# What is no provider at all.

NATIVE = """
    class Native:
        def __init__(self, name):
            self.name = name
        async def complete(self, ask): ...
        async def stream(self, ask): ...
        async def embed(self, ask): ...
        async def close(self): ...

    def create(name, config, http, clock):
        return Native(name)
"""


async def test_an_entry_point_may_give_a_function_as_our_own_modules_have_it(
    plugins: Plugins, http: Http
) -> None:
    plugins.install(NATIVE, "create")
    provider = make("mine", ProviderConfig(dialect="acme"), http, Clock())
    assert (type(provider).__name__, provider.name) == ("Native", "mine")


@pytest.mark.parametrize(
    ("code", "name", "complaint"),
    [
        ("import no_such_library", "Acme", "cannot be loaded: ModuleNotFoundError: No module"),
        ("from model_gateway.providers import ProviderInterface", "Acme", "leave that import out"),
        ("def broken(:", "Acme", "cannot be loaded: SyntaxError"),
        ("raise SystemExit(3)", "Acme", "cannot be loaded: SystemExit: 3"),
        ("", "Acme", "cannot be loaded: AttributeError"),
        ("Acme = 5", "Acme", "neither a class with complete and stream nor a function"),
        ("def create(name): ...", "create", "neither a class with complete and stream nor"),
        ("class Acme: ...", "Acme", "has no method complete(self, messages, model, ...)"),
        (
            "class Acme:\n    def complete(self, prompt): ...\n    def stream(self): ...",
            "Acme",
            "Acme.complete(self, prompt) cannot be called as complete(self, messages, model",
        ),
        (
            provider_class(init=", *, x=1").replace("self.given", "raise OSError('no disk') #"),
            "Acme",
            "Acme() cannot be made: OSError: no disk",
        ),
        ("def create(name, config, http, clock): return 5", "create", "gives has no complete"),
        ("def create(name, config, http, clock): {}[1]", "create", "create() fails: KeyError: 1"),
    ],
)
async def test_what_cannot_be_used_is_told_with_package_and_entry_point(
    plugins: Plugins, http: Http, code: str, name: str, complaint: str
) -> None:
    module = plugins.install(code, name)
    with pytest.raises(Unusable) as caught:
        make("mine", ProviderConfig(dialect="acme"), http, Clock())
    said = str(caught.value)
    assert complaint in said
    assert said.startswith("providers.mine.dialect: ")
    assert said.endswith(f"(entry point 'acme = {module}:{name}' of package acme-nexus)")


async def test_a_class_that_never_gets_made_is_not_waited_for(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapped, "_MADE_WITHIN", 0.1)
    with pytest.raises(Unusable, match="cannot be made: TimeoutError"):
        plugins.make(
            "import threading\n"
            + provider_class().replace("self.given", "threading.Event().wait(2) #")
        )


async def test_what_is_not_configured_is_not_loaded(plugins: Plugins, http: Http) -> None:
    module = plugins.install("raise SystemExit(3)")
    assert "acme" in dialects()
    assert make("mine", ProviderConfig(dialect="mock"), http, Clock()).name == "mine"
    assert module not in sys.modules


async def test_a_name_that_is_built_in_is_refused_with_both(plugins: Plugins, http: Http) -> None:
    module = plugins.install(provider_class(), dialect="openai")
    with pytest.raises(Unusable) as caught:
        make("mine", ProviderConfig(base_url="http://x"), http, Clock())
    assert str(caught.value) == (
        "providers.mine.dialect: 'openai' is both built in and entry point"
        f" 'openai = {module}:Acme' of package acme-nexus; rename or uninstall one of them"
    )
    with pytest.raises(ConfigError, match=r"providers\.local\.dialect: 'openai' is both built in"):
        from_yaml("providers: {local: {base_url: http://127.0.0.1:8001}}")
    assert from_yaml("providers: {c: {dialect: ollama}}").config.providers["c"].dialect == "ollama"


async def test_a_name_that_two_packages_give_is_refused_with_both(plugins: Plugins) -> None:
    plugins.install(provider_class())
    plugins.install(provider_class(), package="other-nexus")
    said = objection("acme")
    assert "of package acme-nexus and entry point" in said and "of package other-nexus;" in said


async def test_settings_know_an_extension_by_its_name_alone(plugins: Plugins) -> None:
    module = plugins.install("raise SystemExit(3)")
    config = from_yaml("providers: {x: {dialect: acme, options: {zone: b}}}").config
    assert config.providers["x"].options == {"zone": "b"}
    with pytest.raises(ConfigError, match="expected one of acme, anthropic, "):
        from_yaml("providers: {x: {dialect: acmee}}")
    assert module not in sys.modules
