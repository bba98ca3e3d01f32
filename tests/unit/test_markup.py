"""A markup on prices: where it is added, where it is not, and by which id it is known."""

from ingress import models
from ingress.routing import Router
from schemas.config import ModelConfig, PricingConfig
from schemas.usage import Price, marked_up
from tests.measured_calls import PRICE, router


def test_a_markup_is_in_the_price_of_every_target_that_our_key_pays() -> None:
    entries = {
        "own": ModelConfig(provider="local", engine="x", input_cost=0.000001, output_cost=0.000002),
        "both": ModelConfig(provider="openai", engine="gpt-4o", fallbacks=("own",)),
    }
    plain = router(entries)
    dearer = router(entries, pricing=PricingConfig(markup_percent=7.5))

    def price(routes: Router, model: str, at: int = 0, *brought: str) -> Price:
        found = routes.plan(model, frozenset(brought))[at].price
        assert found is not None
        return found

    before, after = price(plain, "own"), price(dearer, "own")
    assert (after.rates.input, after.rates.output) == (1_075_000_000, 2_150_000_000)
    assert after.id == f"{before.id}+7.5%"
    assert price(dearer, "gpt-4o").rates.input == price(plain, "gpt-4o").rates.input * 1075 // 1000
    assert price(dearer, "both", 1) == after
    assert price(dearer, "both", 0, "openai") == price(plain, "both", 0)
    assert price(dearer, "both", 1, "openai") == after


def test_without_a_markup_prices_and_their_ids_are_as_they_were() -> None:
    assert marked_up(PRICE, 0.0) is PRICE
    zero = router(pricing=PricingConfig(markup_percent=0))
    assert zero.plan("gpt-4o") == router().plan("gpt-4o")


def test_the_id_of_a_marked_up_price_says_by_how_much() -> None:
    ids = [marked_up(PRICE, percent).id for percent in (5, 10.0, 0.25, 1000)]
    assert ids == ["p+5%", "p+10%", "p+0.25%", "p+1000%"]


def test_the_lists_of_models_show_marked_up_prices() -> None:
    dearer = router(pricing=PricingConfig(markup_percent=100))

    def shown(routes: Router) -> dict[str, float]:
        rows = models.models(routes, lambda *names: True)["data"]
        return {row["id"]: row["capabilities"]["cost_per_1k_input_tokens"] for row in rows}

    before, after = shown(router()), shown(dearer)
    assert before["gpt-4o"] and after["gpt-4o"] == 2 * before["gpt-4o"]
    assert before["o3-pro"] and after["o3-pro"] == 2 * before["o3-pro"]
