"""The choice among targets: what each wish and each strategy makes of the same candidates."""

from collections import Counter

import pytest

from ingress.candidates import Candidate, Need
from ingress.conditions import Condition
from ingress.planning import plan
from ingress.wishes import Wishes
from schemas.catalog import ModelFacts
from tests.planned import Known, candidate, places

CALL = Need(prompt=1000, output=500)
CHEAP = candidate("a/cheap", (100_000_000, 400_000_000), facts=ModelFacts(quality=1100))
GOOD = candidate("b/good", (3_000_000_000, 15_000_000_000), facts=ModelFacts(quality=1300))
PLAIN = candidate("c/plain", (500_000_000, 1_000_000_000), facts=ModelFacts(quality=1200))
UNPRICED = candidate("d/unpriced", None)
ALL = [GOOD, UNPRICED, CHEAP, PLAIN]
MEASURED = Known(
    {
        "a/cheap": Condition(first_byte_ms=900, total_ms=2000),
        "b/good": Condition(first_byte_ms=300, total_ms=4000),
        "c/plain": Condition(first_byte_ms=200, total_ms=3000, error_rate=0.5),
    }
)
NO_TRIAL = 0.99


def test_cost_takes_the_cheapest_for_the_tokens_of_this_call() -> None:
    found = plan(ALL, Wishes("cost"), CALL, Known())
    assert places(found) == ["a/cheap", "c/plain", "b/good", "d/unpriced"]
    assert found.reason == "cost: about 0.0003 USD, the least"
    much_in = candidate("x/in", (100_000_000, 10_000_000_000))
    much_out = candidate("x/out", (1_000_000_000, 1_000_000_000))
    long_prompt, long_answer = Need(prompt=90_000, output=10), Need(prompt=10, output=900)
    assert places(plan([much_in, much_out], Wishes("cost"), long_prompt, Known()))[0] == "x/in"
    assert places(plan([much_in, much_out], Wishes("cost"), long_answer, Known()))[0] == "x/out"


def test_speed_takes_the_first_byte_of_streams_and_the_end_of_answers() -> None:
    streamed = plan(ALL, Wishes("speed"), CALL._replace(stream=True), MEASURED, draw=NO_TRIAL)
    assert places(streamed) == ["b/good", "c/plain", "a/cheap", "d/unpriced"]
    assert streamed.reason == "speed: about 300 ms to the first byte"
    whole = plan(ALL, Wishes("speed"), CALL, MEASURED, draw=NO_TRIAL)
    assert places(whole) == ["a/cheap", "b/good", "c/plain", "d/unpriced"], "errors cost time"


def test_one_call_of_sixteen_that_asks_for_speed_tries_what_nobody_has_measured() -> None:
    draws = [number / 1600 for number in range(1600)]
    plans = [plan(ALL, Wishes("speed"), CALL, MEASURED, draw=draw) for draw in draws]
    assert Counter(places(found)[0] for found in plans) == {"d/unpriced": 100, "a/cheap": 1500}
    assert plans[0].reason == "speed: not measured yet, so it has its turn"
    assert places(plans[0]) == ["d/unpriced", "a/cheap", "b/good", "c/plain"]


def test_where_nothing_is_measured_each_target_has_the_same_chance() -> None:
    draws = [number / 400 for number in range(400)]
    plans = [plan(ALL, Wishes("speed"), CALL, Known(), draw=draw) for draw in draws]
    firsts = Counter(places(found)[0] for found in plans)
    assert set(firsts.values()) == {100}
    assert len(firsts) == 4


def test_quality_takes_the_best_rating_and_the_unknown_last() -> None:
    found = plan(ALL, Wishes("quality"), CALL, Known())
    assert places(found) == ["b/good", "c/plain", "a/cheap", "d/unpriced"]
    assert found.reason == "quality: rated 1300"


def test_auto_weighs_all_three_and_cost_only_where_it_is_wanted() -> None:
    known = Known({one: Condition(total_ms=1000) for one in ("a/cheap", "b/good", "c/plain")})
    weighed = plan([GOOD, CHEAP, PLAIN], Wishes("auto"), CALL, known)
    assert places(weighed) == ["b/good", "a/cheap", "c/plain"]
    near = candidate("n/near", (100_000_000, 400_000_000), facts=ModelFacts(quality=1290))
    assert places(plan([GOOD, near, CHEAP], Wishes("auto"), CALL, Known()))[0] == "n/near"
    careless = plan([GOOD, near, CHEAP], Wishes("auto"), CALL, Known(), weigh_cost=False)
    assert places(careless)[0] == "b/good"


def test_without_a_strategy_the_order_stays() -> None:
    found = plan(ALL, Wishes(), CALL, MEASURED)
    assert (places(found)[0], found.reason) == ("b/good", "as configured")


def test_preferred_providers_come_first_and_within_them_the_strategy_decides() -> None:
    found = plan(ALL, Wishes("cost", preferred=("b", "c")), CALL, Known())
    assert places(found) == ["c/plain", "b/good", "a/cheap", "d/unpriced"]
    fast = plan(ALL, Wishes("speed", preferred=("a", "b")), CALL, MEASURED, draw=0.0)
    assert places(fast)[0] == "a/cheap", "what is not preferred is not tried either"


def test_what_is_broken_comes_last_and_is_the_only_one_where_nothing_else_is_left() -> None:
    broken = Known({"a/cheap": Condition(broken=True)})
    assert places(plan(ALL, Wishes("cost"), CALL, broken))[-1] == "a/cheap"
    assert places(plan(ALL, Wishes("cost"), CALL, broken, most=2)) == ["c/plain", "b/good"]
    assert places(plan([CHEAP], Wishes("cost"), CALL, broken)) == ["a/cheap"]
    stands_in = PLAIN._replace(stands_in=True)
    assert places(plan([CHEAP, stands_in], Wishes(), CALL, broken)) == ["c/plain", "a/cheap"]


def test_who_stands_in_comes_after_all_others_in_the_given_order() -> None:
    stands_in = [one._replace(stands_in=True) for one in (GOOD, CHEAP)]
    found = plan([*stands_in, PLAIN], Wishes("cost"), CALL, Known())
    assert places(found) == ["c/plain", "b/good", "a/cheap"]
    alone = plan(stands_in, Wishes("cost"), CALL, Known())
    assert alone.reason == "a fallback, as nothing else fulfils the wishes"


def test_a_plan_is_no_longer_than_it_may_be() -> None:
    assert len(plan(ALL, Wishes("cost"), CALL, Known(), most=1).targets) == 1


SEES_NOTHING = ModelFacts(vision=False)
NO_TOOLS = ModelFacts(tools=False)
NO_SCHEMA = ModelFacts(json_schema=False)
SMALL = ModelFacts(context_window=1200, max_tokens=100)


@pytest.mark.parametrize(
    ("facts", "need", "says"),
    [
        (SEES_NOTHING, CALL._replace(images=True), "images excludes x/y (it takes none)"),
        (NO_TOOLS, CALL._replace(tools=True), "tools excludes x/y (it calls none)"),
        (
            NO_SCHEMA,
            CALL._replace(schema=True),
            "response_format excludes x/y (it does not answer by a JSON schema)",
        ),
        (
            SMALL,
            Need(prompt=1300),
            "the call's size excludes x/y (its context window is 1200 tokens)",
        ),
        (
            SMALL,
            Need(prompt=1190, max_tokens=11),
            "the call's size excludes x/y (its context window is 1200 tokens)",
        ),
        (
            SMALL,
            Need(prompt=9, max_tokens=101),
            "max_tokens excludes x/y (its answers have at most",
        ),
    ],
)
def test_a_target_that_cannot_do_it_is_left_and_one_that_nobody_knows_is_not(
    facts: ModelFacts, need: Need, says: str
) -> None:
    unable, unknown = candidate("x/y", facts=facts), candidate("x/unknown")
    assert places(plan([unable, unknown], Wishes("cost"), need, Known())) == ["x/unknown"]
    refused = plan([unable], Wishes("cost"), need, Known())
    assert refused.targets == ()
    assert refused.refused_because().startswith(says)
    assert places(plan([unable], Wishes("cost"), Need(prompt=9), Known())) == ["x/y"]


@pytest.mark.parametrize(
    ("wishes", "left", "says"),
    [
        (
            Wishes(max_per_1k_nano=700_000),
            ["b/good", "d/unpriced"],
            "routing.max_cost_per_1k_tokens excludes b/good (1,000 tokens cost about 0.007 USD),"
            " d/unpriced (its price is not known)",
        ),
        (
            Wishes(max_latency_ms=2500),
            ["b/good", "c/plain"],
            "routing.max_latency_ms excludes b/good (it takes about 4000 ms), c/plain (it takes",
        ),
    ],
)
def test_a_bound_leaves_out_what_is_above_it(wishes: Wishes, left: list[str], says: str) -> None:
    found = plan(ALL, wishes, CALL, MEASURED)
    assert {*places(found)} == {"a/cheap", "b/good", "c/plain", "d/unpriced"} - {*left}
    assert found.refused_because().startswith(says)


@pytest.mark.parametrize(
    ("region", "wanted", "is_in"),
    [
        ("eu", "eu", True),
        ("eu-west-1", "eu", True),
        ("europe-west1", "EU", True),
        ("eu-west-1", "eu-west-1", True),
        ("eu-west-1", "eu-west", True),
        ("eu-west-10", "eu-west-1", False),
        ("us-east-1", "eu", False),
        ("eus", "eu", False),
        ("", "eu", False),
    ],
)
def test_a_region_has_to_be_known_and_begin_with_what_is_wished(
    region: str, wanted: str, is_in: bool
) -> None:
    found = plan([candidate("x/y", region=region)], Wishes(region=wanted), CALL, Known())
    assert bool(found.targets) is is_in


def test_every_candidate_is_told_with_its_place_or_why_it_has_none() -> None:
    wishes = Wishes("cost", max_per_1k_nano=700_000)
    found = plan(ALL, wishes, CALL, Known(), most=1)
    told = [(one.candidate.model, one.left and one.left.wish) for one in found.considered]
    bound = "routing.max_cost_per_1k_tokens"
    assert told == [("cheap", None), ("plain", None), ("good", bound), ("unpriced", bound)]
    assert found.models(16) == ("cheap", "plain")
    assert found.models(1) == ("cheap",)


def test_a_long_list_of_refusals_is_told_in_short() -> None:
    many: list[Candidate] = [candidate(f"p/m{number}") for number in range(9)]
    found = plan(many, Wishes(region="eu"), CALL, Known())
    assert found.refused_because().endswith("p/m2 (its region is unknown) and 6 more")
