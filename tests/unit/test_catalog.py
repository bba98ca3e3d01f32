"""The catalog says what the package that its prices come from says, and what documents 000 and 003
name; what nobody knows is None."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import msgspec
import pytest
from genai_prices import types as source
from genai_prices.data import providers

from compose.generate_catalog import CLASSES, TARGET, packaged
from schemas.catalog import Catalog, load_vendors
from schemas.ids import Clock
from schemas.prices import PriceBook
from schemas.usage import Cost, Price, Rates, Usage, cost_of
from workers.providers import dialects

TODAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
# The seven of document 000, with what stands behind them there.
ALIASES = {
    "gpt-4o": ("azure", "gpt-4o-2024-08-06"),
    "gpt-4-turbo": ("azure", "gpt-4-turbo-2024-04-09"),
    "gpt-3.5-turbo": ("azure", "gpt-35-turbo-0125"),
    "claude-3-opus": ("anthropic", "claude-3-opus-20240229"),
    "claude-3-sonnet": ("anthropic", "claude-3-5-sonnet-20241022"),
    "claude-3-haiku": ("anthropic", "claude-3-haiku-20240307"),
    "mistral-large": ("mistral", "mistral-large-latest"),
}


def at(moment: datetime) -> Clock:
    return Clock(now_ns=lambda: int(moment.timestamp()) * 1_000_000_000)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook.load()


def comparable(price: source.ModelPrice) -> bool:
    """Whether a price consists of what has a class of its own here."""
    keys = {key for key, value in vars(price).items() if value is not None}
    return "input_mtok" in keys and keys <= {*CLASSES.values(), "requests_kcount"}


def samples() -> Iterator[tuple[source.Provider, source.ModelInfo, datetime]]:
    """Every model before and after its prices changed, in the day and at night."""
    moments = [TODAY, TODAY.replace(hour=23), TODAY.replace(year=2024), TODAY.replace(year=2028)]
    for provider in providers:
        for model in provider.models:
            for moment in moments if isinstance(model.prices, list) else moments[:1]:
                yield provider, model, moment


def test_the_committed_prices_are_those_of_the_installed_package() -> None:
    assert packaged(PriceBook.load().made) == TARGET.read_text(encoding="utf-8")


def test_every_price_costs_the_same_as_in_its_source(book: PriceBook) -> None:
    compared = 0
    for provider, model, moment in samples():
        theirs = model.get_prices(moment)
        if not comparable(theirs):
            continue
        listed = next(row for row in book.models(provider.id) if row.id == model.id)
        version = listed.price_at(int(moment.timestamp()))
        assert version.rates is not None, (provider.id, model.id)
        ours = Price("", version.rates, version.tiers, version.per_request)
        for prompt in (1_000, 150_000, 300_000, 600_000):
            usage = Usage(input=prompt - 400, cached_input=400, output=700)
            reported = genai_prices.Usage(
                input_tokens=prompt, cache_read_tokens=400, output_tokens=700
            )
            usd = theirs.calc_price(reported)["total_price"]
            # Each side is rounded once, and the source itself has rates below a nano-dollar.
            difference = abs(cost_of(usage, ours).total - usd * 10**9)
            assert difference <= 2, (provider.id, model.id, moment, prompt)
            compared += 1
    assert compared > 8_000


def test_every_name_finds_the_model_that_its_source_finds(book: PriceBook) -> None:
    for provider in providers:
        for model in provider.models:
            row = next(row for row in book.models(provider.id) if row.id == model.id)
            for name in (model.id, model.id.upper(), f"{model.id}-2031-01-01", *row.names):
                theirs = next((other for other in provider.models if other.is_match(name)), None)
                ours = book.find(provider.id, name)
                assert (ours and ours.id) == (theirs and theirs.id), (provider.id, name)


def test_a_price_changes_on_its_day_and_its_id_with_it(book: PriceBook) -> None:
    change = int(datetime(2026, 6, 16, tzinfo=UTC).timestamp())
    before = book.price("mistral", "mistral-medium-latest", change - 1)
    after = book.price("mistral", "mistral-medium-latest", change)
    assert before is not None
    assert after is not None
    assert (before.rates.input, after.rates.input) == (400_000_000, 1_500_000_000)
    assert before.id != after.id


def test_a_price_by_the_time_of_day_begins_and_ends_at_its_minute() -> None:
    def rates(hour: int, minute: int, second: int = 0) -> int:
        clock = at(TODAY.replace(hour=hour, minute=minute, second=second))
        price = Catalog.load(clock).price("deepseek", "deepseek-chat")
        assert price is not None
        return price.rates.input

    cheap, dear = 135_000_000, 270_000_000
    assert [rates(0, 29, 59), rates(0, 30), rates(16, 29, 59), rates(16, 30)] == [
        cheap,
        dear,
        dear,
        cheap,
    ]


def test_a_price_has_an_id_with_its_edition_and_its_content() -> None:
    price = Catalog.load().price("openai", "gpt-4o-2024-08-06")
    assert price is not None
    edition, provider, model, digest = price.id.split("/")
    assert (edition, provider, model) == (PriceBook.load().edition, "openai", "gpt-4o")
    assert len(digest) == 8
    assert price.rates == Rates(
        input=2_500_000_000, output=10_000_000_000, cached_input=1_250_000_000
    )


def test_a_tiered_price_holds_for_the_whole_prompt() -> None:
    price = Catalog.load().price("google", "gemini-1.5-pro")
    assert price is not None
    assert cost_of(Usage(input=128_000), price) == Cost(input=160_000_000)
    assert cost_of(Usage(input=128_001), price) == Cost(input=320_002_500)


def test_embeddings_cost_nothing_on_their_way_out() -> None:
    price = Catalog.load().price("openai", "text-embedding-3-small")
    assert price is not None
    assert price.rates == Rates(input=20_000_000, output=0)


def test_what_resellers_do_not_list_costs_what_the_maker_asks() -> None:
    """Without the prices of the maker's service tiers: their source gives them to nobody else."""
    catalog = Catalog.load()
    resold, own = catalog.price("azure", "gpt-4o"), catalog.price("openai", "gpt-4o")
    assert resold is not None and own is not None and own.variants
    assert resold == msgspec.structs.replace(own, variants=())


@pytest.mark.parametrize(
    ("provider", "engine"),
    [
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-4o"),
        ("ollama", "llama3.1:8b"),
        ("github-copilot", "gpt-4o"),
        ("groq", "whisper-large-v3"),
        ("openai", ""),
        ("openai", "gpt-4o\n"),
    ],
)
def test_a_price_that_nobody_knows_per_token_is_none(provider: str, engine: str) -> None:
    assert Catalog.load().price(provider, engine) is None


def test_what_is_free_by_name_costs_nothing() -> None:
    price = Catalog.load().price("openrouter", "allenai/molmo-7b-d:free")
    assert price is not None
    assert price.rates == Rates(input=0, output=0)


def test_the_aliases_of_document_000_are_built_in() -> None:
    aliases = Catalog.load().aliases
    assert {name: aliases[name] for name in ALIASES} == ALIASES


@pytest.mark.parametrize("name", [name for name in Catalog.load().names() if name != "mock"])
def test_every_built_in_model_has_a_price_at_its_first_provider(name: str) -> None:
    catalog = Catalog.load(at(TODAY))
    provider, engine = catalog.aliases[name]
    price = catalog.price(provider, engine) or catalog.price(provider, name)
    assert price is not None
    assert price.rates.input > 0


def test_every_provider_of_a_built_in_model_is_a_vendor() -> None:
    catalog = Catalog.load()
    for name in catalog.names():
        facts = catalog.facts(name)
        assert facts is not None
        assert facts.engines.keys() <= catalog.vendors.keys()


def test_what_is_not_known_of_a_model_is_none() -> None:
    facts = Catalog.load().facts("codestral")
    assert facts is not None
    assert facts.tools is None
    assert facts.max_tokens is None
    assert Catalog.load().facts("gpt-4o-2024-08-06") is None


def test_vendors_have_an_address_or_a_variable_for_it_and_say_what_they_need() -> None:
    vendors = {vendor.name: vendor for vendor in load_vendors()}
    addressless = [one.name for one in vendors.values() if not (one.base_url or one.url_env)]
    assert addressless == ["vertex"]
    assert len(vendors) >= 80
    assert {vendor.dialect for vendor in vendors.values()} <= set(dialects())
    variables = [vendor.url_env for vendor in vendors.values() if vendor.url_env]
    assert len(variables) == len(set(variables))
    assert vendors["openai"].needs == "OPENAI_API_KEY"
    assert vendors["azure"].needs == "AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT"
    assert vendors["ollama"].needs == "OLLAMA_BASE_URL"
    assert vendors["bedrock"].needs == "AWS_BEARER_TOKEN_BEDROCK"
    vertex = "GOOGLE_CLOUD_PROJECT and GOOGLE_APPLICATION_CREDENTIALS"
    assert vendors["vertex"].needs == vertex


def test_a_configured_provider_has_the_prices_of_whoever_serves_its_address() -> None:
    catalog = Catalog.load()
    assert catalog.price_list_of("fast", "https://api.groq.com/openai/v1") == "groq"
    assert catalog.price_list_of("eu", "https://name.openai.azure.com/openai/v1") == "azure"
    assert catalog.price_list_of("openai", "http://127.0.0.1:9999/v1") == "openai"
    assert catalog.price_list_of("local", "http://127.0.0.1:9999/v1") == "local"


def test_the_mock_has_a_price_that_shows_in_demos() -> None:
    price = Catalog.load().price("mock", "mock")
    assert price is not None
    assert price.id == "mock/1"
    cost = cost_of(Usage(input=1_000_000, output=1_000_000), price)
    assert Decimal(cost.total) / 10**9 == 3
