"""A file of newer prices is used from its next look on, and what was planned keeps its price."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingress.routing import Router
from schemas.call import Target
from schemas.catalog import Catalog
from schemas.config import Config, PricingConfig, ProviderConfig
from schemas.ids import Clock
from schemas.prices import PriceBook
from schemas.usage import Usage, cost_of
from workers.costs import cost_at

MINUTE = 60 * 10**9
NEWER = "2099-01-01T00:00:00Z"
OLDER = "2001-01-01T00:00:00Z"


def price_file(input_rate: int, made: str = NEWER, engine: str = "gpt-4o") -> bytes:
    version = {"digest": f"{input_rate:08x}"[:8], "rates": {"input": input_rate, "output": 7}}
    models = [{"id": engine, "names": [engine], "prices": [version]}]
    openai = {"url": "https://api\\.openai\\.com", "fallbacks": [], "models": models}
    head = {"source": "acme", "version": str(input_rate), "made": made, "license": ""}
    return json.dumps({**head, "providers": {"openai": openai}}).encode()


class Now:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.ns = 1_790_000_000 * 10**9

    @property
    def clock(self) -> Clock:
        return Clock(now_ns=lambda: self.ns)


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prices.json"


@pytest.fixture
def put(file: Path) -> Callable[[bytes], None]:
    """Replaces the file as `nexus prices update` does."""

    def replaced(data: bytes) -> None:
        fresh = file.with_name("fresh")
        fresh.write_bytes(data)
        os.replace(fresh, file)

    return replaced


@pytest.fixture
def routes(file: Path, now: Now) -> Router:
    config = Config(
        providers={"openai": ProviderConfig(base_url="https://api.openai.com/v1", api_key="k")},
        pricing=PricingConfig(file=str(file)),
    )
    catalog = Catalog.load(now.clock)
    catalog.follow(config.price_file)
    return Router(config, catalog, now.clock)


def planned(routes: Router, model: str = "gpt-4o") -> Target:
    (target,) = routes.plan(model)
    return target


def input_rate(target: Target) -> int:
    assert target.price is not None
    return target.price.rates.input


BUILT_IN = 2_500_000_000


def test_a_file_that_comes_changes_and_goes_is_noticed_within_a_minute(
    routes: Router, now: Now, put: Callable[[bytes], None], file: Path
) -> None:
    assert input_rate(planned(routes)) == BUILT_IN
    for rate in (5, 6):
        put(price_file(rate))
        now.ns += MINUTE
        assert input_rate(planned(routes)) == rate
    file.unlink()
    now.ns += MINUTE
    assert input_rate(planned(routes)) == BUILT_IN


def test_within_a_minute_the_file_is_looked_at_once(
    routes: Router, now: Now, put: Callable[[bytes], None]
) -> None:
    planned(routes)
    put(price_file(5))
    assert input_rate(planned(routes)) == BUILT_IN
    assert input_rate(planned(routes, "openai/gpt-4o")) == BUILT_IN


def test_a_planned_call_keeps_its_price_whatever_the_book_says_since(
    routes: Router, now: Now, put: Callable[[bytes], None]
) -> None:
    before = planned(routes)
    usage = Usage(input=1_000, cached_input=200, output=30, status="reported")
    cost = cost_at(before, usage)
    put(price_file(5))
    now.ns += MINUTE
    after = planned(routes)
    assert cost_at(before, usage) == cost
    assert before.price is not None and after.price is not None
    assert before.price.id != after.price.id
    assert cost_of(usage, after.price).total != cost_of(usage, before.price).total


def test_a_router_begins_with_the_file(routes: Router, put: Callable[[bytes], None]) -> None:
    put(price_file(9))
    catalog = Catalog.load()
    catalog.follow(routes.config.price_file)
    assert input_rate(planned(Router(routes.config, catalog))) == 9
    assert catalog.edition == f"acme-9 of 2099-01-01, {routes.config.price_file}"


def test_names_that_come_with_a_file_are_listed(
    routes: Router, now: Now, put: Callable[[bytes], None]
) -> None:
    assert "gpt-99" not in routes.names
    put(price_file(5, engine="gpt-99"))
    now.ns += MINUTE
    assert input_rate(planned(routes, "gpt-99")) == 5
    assert "gpt-99" in routes.names


@pytest.mark.parametrize("broken", [b"", b"{}", b"\xff\xfe", price_file(-1), price_file(5)[:-9]])
def test_a_broken_file_leaves_in_use_what_is(
    broken: bytes,
    routes: Router,
    now: Now,
    put: Callable[[bytes], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(price_file(5))
    now.ns += MINUTE
    assert input_rate(planned(routes)) == 5
    put(broken)
    for _ in range(3):
        now.ns += MINUTE
        assert input_rate(planned(routes)) == 5
    (told,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert routes.config.price_file in told.getMessage()
    assert "not used: " in routes.catalog.edition
    put(price_file(6))
    now.ns += MINUTE
    assert input_rate(planned(routes)) == 6 and "not used" not in routes.catalog.edition


def test_a_file_older_than_the_built_in_prices_is_not_used_and_that_is_said(
    routes: Router, now: Now, put: Callable[[bytes], None]
) -> None:
    put(price_file(5, made=OLDER))
    now.ns += MINUTE
    assert input_rate(planned(routes)) == BUILT_IN
    built_in = PriceBook.load()
    assert routes.catalog.edition.startswith(f"{built_in.edition} of {built_in.made[:10]}, built")
    assert "older than the built-in prices" in routes.catalog.edition


def test_what_is_no_file_is_not_used(routes: Router, now: Now, file: Path) -> None:
    file.mkdir()
    now.ns += MINUTE
    assert input_rate(planned(routes)) == BUILT_IN
    assert "not used" in routes.catalog.edition


def test_without_a_setting_the_file_is_in_the_data_directory() -> None:
    settings: dict[str, Any] = {"data_dir": "/var/lib/nexus"}
    assert Config(**settings).price_file == "/var/lib/nexus/prices.json"
    settings["pricing"] = PricingConfig(file="/etc/prices.json")
    assert Config(**settings).price_file == "/etc/prices.json"
