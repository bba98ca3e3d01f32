"""What is built in: vendors and how to reach them, the models the documents name, and all prices.

`data/models.json` and `data/vendors.json` are kept by hand; what they do not know is null.
"""

from collections.abc import Mapping
from importlib.resources import files

import msgspec

from schemas.config import Quirks
from schemas.ids import Clock
from schemas.price_file import PriceFile
from schemas.prices import PriceBook, PricedModel
from schemas.usage import Price, Rates


class Vendor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider that needs no more than a key.

    `key_envs` name the variables of its key, the first one that is set counts (none: it needs no
    key); `url_env` the one that replaces `base_url`, to which `url_path` is added, `region_env`
    that of its region, which is `region` where nobody says otherwise and stands for `{region}` in
    `base_url`. An address that is not there is derived by the adapter. `options` are those of its
    dialect, `option_envs` their variables; `signs_in` are sets of options each of which does
    instead of a key, and `requires` the options that it needs besides. `prices` is its name in the
    price book, if another, `litellm` are its names in LiteLLM; `serves` are the beginnings of what
    its address serves, where that list has more.
    """

    name: str
    base_url: str = ""
    dialect: str = "openai"
    key_envs: tuple[str, ...] = ()
    url_env: str = ""
    url_path: str = ""
    region: str = ""
    region_env: str = ""
    options: dict[str, str] = {}
    option_envs: dict[str, str] = {}
    litellm: tuple[str, ...] = ()
    signs_in: tuple[tuple[str, ...], ...] = ()
    requires: tuple[str, ...] = ()
    quirks: Quirks = Quirks()
    prices: str = ""
    serves: tuple[str, ...] = ()

    @property
    def needs(self) -> str:
        """The variables that make it usable, as a phrase: `OPENAI_API_KEY`."""
        key = self.key_envs[0] if self.key_envs else ""
        address = "" if self.base_url and key else self.url_env
        others = [self.option_envs.get(option, option) for option in self.requires]
        if not key and self.signs_in:
            others += [self.option_envs.get(option, option) for option in self.signs_in[0]]
        return " and ".join(filter(None, [key, address, *others]))


class ModelFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a model; None is unknown, never guessed.

    `engines` are the providers' own names for it, by provider in order of preference, `owner` who
    made it, `released` the day of that version (`2024-08-06`). `quality` only orders: it is the
    score of that version in the text leaderboard of LMArena of July 2025
    (https://lmarena.ai/leaderboard), where people choose the better of two answers.
    """

    display_name: str | None = None
    owner: str | None = None
    released: str | None = None
    engines: dict[str, str] = {}
    max_tokens: int | None = None
    context_window: int | None = None
    vision: bool | None = None
    tools: bool | None = None
    json_schema: bool | None = None
    streaming: bool | None = None
    category: str | None = None
    tier: str | None = None
    quality: int | None = None


MOCK_VENDOR = Vendor(name="mock", dialect="mock")
MOCK_FACTS = ModelFacts(
    display_name="Mock",
    owner="nexus",
    engines={"mock": "mock"},
    streaming=True,
    category="test",
    tier="economy",
)
MOCK_PRICE = Price(id="mock/1", rates=Rates(input=1_000_000_000, output=2_000_000_000))

_NANO_PER_SECOND = 1_000_000_000


class Catalog:
    """Vendors, models and prices by name. Loading reads three small files; a price list is decoded
    when its provider is first asked for."""

    def __init__(
        self,
        vendors: tuple[Vendor, ...],
        models: Mapping[str, ModelFacts],
        prices: PriceBook,
        clock: Clock,
    ) -> None:
        self.vendors = {vendor.name: vendor for vendor in (*vendors, MOCK_VENDOR)}
        self._models = {"mock": MOCK_FACTS, **models}
        self._prices = self._built_in = prices
        self._file: PriceFile | None = None
        self._clock = clock

    @classmethod
    def load(cls, clock: Clock = Clock()) -> "Catalog":  # noqa: B008 - a Clock has no state
        data = files("schemas").joinpath("data")
        return cls(
            load_vendors(),
            msgspec.json.decode(
                data.joinpath("models.json").read_bytes(), type=dict[str, ModelFacts]
            ),
            PriceBook.load(),
            clock,
        )

    def follow(self, path: str) -> None:
        """From now on prefer the prices in a file, as long as it is newer than what is built in."""
        self._file = PriceFile(path, self._built_in)
        self.refresh()

    def refresh(self) -> bool:
        """Look whether the followed file has changed; True if other prices hold now."""
        before = self._prices
        if self._file is not None:
            self._prices = self._file.look(before)
        return self._prices is not before

    @property
    def book(self) -> PriceBook:
        """The prices in use."""
        return self._prices

    @property
    def edition(self) -> str:
        """Which prices are in use, as a phrase: `genai-prices-0.2.3 of 2026-11-21, built in`."""
        built_in = self._prices is self._built_in
        where = "built in" if built_in or self._file is None else str(self._file.path)
        told = f"{self._prices.edition} of {self._prices.made[:10]}, {where}"
        problem = self._file.problem if self._file is not None else ""
        return f"{told} (not used: {problem})" if problem else told

    @property
    def aliases(self) -> dict[str, tuple[str, str]]:
        """Provider and engine behind each built-in name, first choice only."""
        return {
            name: next(iter(facts.engines.items()))
            for name, facts in self._models.items()
            if facts.engines
        }

    def names(self) -> tuple[str, ...]:
        """The built-in names: those of the documents and `mock`."""
        return tuple(self._models)

    def facts(self, name: str) -> ModelFacts | None:
        """What is known of a built-in name."""
        return self._models.get(name)

    def price(self, provider: str, engine: str) -> Price | None:
        """What a provider asks for an engine now; None when that is not known."""
        if provider == MOCK_VENDOR.name:
            return MOCK_PRICE
        seconds = self._clock.now_ns() // _NANO_PER_SECOND
        return self._prices.price(self._book_name(provider), engine, seconds)

    def listed(self, provider: str, engine: str) -> PricedModel | None:
        """An engine in the provider's own price list."""
        vendor = self.vendors.get(provider)
        if vendor is not None and vendor.serves and not engine.startswith(vendor.serves):
            return None
        return self._prices.find(self._book_name(provider), engine)

    def engines(self, provider: str) -> tuple[str, ...]:
        """What the provider's own price list has."""
        return tuple(model.id for model in self._prices.models(self._book_name(provider)))

    def price_list_of(self, provider: str, base_url: str) -> str:
        """Under which name the prices of a configured provider are found: its own if the catalog
        knows it, else that of whoever serves the URL."""
        if provider in self.vendors or provider in self._prices:
            return provider
        return self._prices.provider_of_url(base_url) or provider

    def priced_as(self, name: str) -> tuple[str, str]:
        """Vendor and engine behind a name as LiteLLM has it: `gemini/gemini-2.5-pro`, `gpt-4o`."""
        prefix, slash, engine = name.partition("/")
        if not slash:
            return "openai", name
        known = next((v.name for v in self.vendors.values() if prefix in v.litellm), prefix)
        return known, engine

    def _book_name(self, provider: str) -> str:
        vendor = self.vendors.get(provider)
        return vendor.prices if vendor is not None and vendor.prices else provider


def load_vendors() -> tuple[Vendor, ...]:
    """The known vendors in order of preference."""
    data = files("schemas").joinpath("data/vendors.json").read_bytes()
    return msgspec.json.decode(data, type=tuple[Vendor, ...])
