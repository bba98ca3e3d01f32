"""Which limits apply to a call, and what its client is told; the governor's rates stand behind it
without a bus between."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from ingress.auth import Principal
from ingress.limits import Applying
from ingress.rating import Passed, Rating
from ledger.access.configured import configured
from ledger.access.registry import Registry
from ledger.budgets.messages import Answer, RateShortage, RateWant, Want
from ledger.budgets.rates import Rates
from schemas.access import Limits, LimitSettings
from schemas.call import Tenant
from schemas.config import Config, LimitConfig, ModelConfig, ProjectConfig, TeamConfig
from schemas.errors import RateLimited
from schemas.ids import Clock

SECOND = 1_000_000_000
BEGIN = 1_763_700_000 * SECOND


class Governor:
    """Answers for any number of holders; `hold` makes it silent."""

    def __init__(self) -> None:
        self.now_ns = BEGIN
        self.rates = Rates()
        self.clock = Clock(now_ns=lambda: self.now_ns)
        self.asked: list[tuple[RateWant, ...]] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self.delay_ns = 0

    def take(self, wants: tuple[RateWant, ...], holder: str) -> Answer:
        self.asked.append(wants)
        found = self.rates.take(wants, holder, self.now_ns)
        self.now_ns += self.delay_ns
        if isinstance(found, RateShortage):
            return Answer(rate_shortage=found)
        return Answer(rates=found)


class Line:
    """One ingress's way to it."""

    def __init__(self, governor: Governor, holder: str) -> None:
        self.holder = holder
        self.away = False
        self.reign = 0
        self._governor = governor

    async def ask(
        self, wants: Sequence[Want] = (), rates: Sequence[RateWant] = ()
    ) -> Answer | None:
        await asyncio.sleep(0)
        await self._governor.answering.wait()
        return self._governor.take(tuple(rates), self.holder)

    def give(self, amounts: Mapping[str, int], slots: Mapping[str, int] | None = None) -> None:
        self._governor.rates.give_back(self.holder, slots or {}, self._governor.now_ns)


class Ingress:
    """One process, with a configuration of its own."""

    def __init__(self, governor: Governor, name: str = "one", **config: Any) -> None:
        settings = Config(**config)
        self.line = Line(governor, name)
        self.governor = governor
        registry = Registry(configured(settings))
        self.rating = Rating(Applying(settings, registry), self.line, governor.clock)

    async def call(
        self, limits: Limits | None = None, model: str = "m", tokens: int = 10, **more: Any
    ) -> Passed:
        tenant = Tenant(**{"key_id": "k", **more.pop("tenant", {})})
        principal = Principal(tenant, limits=limits, **more)
        deadline_ns = self.governor.now_ns + 600 * SECOND
        return await self.rating.admit(principal, tenant, model, tokens, deadline_ns)

    async def passes(self, **more: Any) -> int:
        """How many calls pass before one is refused; 50 at most."""
        for count in range(50):
            try:
                await self.call(**more)
            except RateLimited:
                return count
        return 50


@pytest.fixture
async def governor() -> AsyncIterator[Governor]:
    yield Governor()


def told(passed: Passed) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in passed.headers}


async def test_whoever_has_no_limits_is_told_nothing_and_nobody_is_asked(
    governor: Governor,
) -> None:
    one = Ingress(governor)
    free: tuple[dict[str, Any], ...] = (
        {},
        {"admin": True, "limits": Limits(requests_per_minute=1)},
        {"tier": "unheard"},
    )
    for more in free:
        passed = await one.call(**more)
        assert passed.headers == []
        passed.release(1000)
    assert governor.asked == []


async def test_leases_end_once_another_reign_is_told_of(governor: Governor) -> None:
    one = Ingress(governor)
    hourly = Limits(requests_per_hour=40)
    while len(governor.asked) < 2:
        await one.call(hourly)
    await one.call(hourly)
    assert len(governor.asked) == 2
    governor.rates = Rates()
    governor.rates.reign = one.line.reign = 7
    passed = await one.call(hourly)
    assert len(governor.asked) == 3
    assert told(passed)["x-ratelimit-remaining-requests"] == "39"
    await one.call(hourly)
    assert len(governor.asked) <= 4


@pytest.mark.parametrize(
    ("config", "call", "passing"),
    [
        ({}, {"limits": Limits(requests_per_minute=3)}, 3),
        ({}, {"limits": Limits(requests_per_hour=4)}, 4),
        ({}, {"limits": Limits(requests_per_second=5)}, 5),
        ({}, {"limits": Limits(requests_per_second=0.5)}, 1),
        ({}, {"limits": Limits(requests_per_second=10, burst=20)}, 20),
        ({}, {"limits": Limits(tokens_per_minute=35)}, 3),
        ({}, {"limits": Limits(tokens_per_hour=25)}, 2),
        ({}, {"limits": Limits(concurrent=6)}, 6),
        ({}, {"tier": "free", "tokens": 5_000}, 10),
        ({}, {"tier": "pro", "tokens": 250_000}, 2),
        ({}, {"tier": "enterprise"}, 50),
        ({"tiers": {"free": LimitSettings(requests_per_minute=2)}}, {"tier": "free"}, 2),
        ({"tiers": {"vip": LimitSettings(requests_per_minute=7)}}, {"tier": "vip"}, 7),
        (
            {"tiers": {"vip": LimitSettings(requests_per_minute=7)}},
            {"tier": "vip", "limits": Limits(requests_per_minute=9)},
            7,
        ),
        ({"limits": LimitConfig(requests_per_minute=3)}, {}, 3),
        ({"limits": LimitConfig(requests_per_minute=0)}, {}, 50),
        ({"limits": LimitConfig(requests_per_minute=3)}, {"kind": "client"}, 3),
        ({"limits": LimitConfig(requests_per_second=3, burst=7)}, {}, 7),
        ({"limits": LimitConfig(model_tokens_per_minute=35)}, {}, 3),
        (
            {"limits": LimitConfig(requests_per_minute=3)},
            {"limits": Limits(requests_per_minute=8)},
            8,
        ),
        (
            {"limits": LimitConfig(requests_per_second=3, burst=7)},
            {"limits": Limits(requests_per_second=4)},
            4,
        ),
        (
            {"limits": LimitConfig(per_user=LimitSettings(requests_per_minute=3))},
            {"tenant": {"user": "ana"}},
            3,
        ),
        ({"limits": LimitConfig(per_user=LimitSettings(requests_per_minute=3))}, {}, 50),
        (
            {"projects": {"shop": ProjectConfig(limits=LimitSettings(requests_per_minute=2))}},
            {"tenant": {"project": "shop"}},
            2,
        ),
        (
            {"teams": {"web": TeamConfig(limits=LimitSettings(concurrent=2))}},
            {"tenant": {"team": "web"}, "limits": Limits(requests_per_minute=9)},
            2,
        ),
        ({"models": {"m": ModelConfig(limits=LimitSettings(requests_per_minute=4))}}, {}, 4),
        (
            {"models": {"m": ModelConfig(limits=LimitSettings(requests_per_minute=4))}},
            {"model": "other"},
            50,
        ),
    ],
)
async def test_every_limit_that_applies_holds(
    governor: Governor, config: dict[str, Any], call: dict[str, Any], passing: int
) -> None:
    assert await Ingress(governor, **config).passes(**call) == passing


async def test_a_project_is_limited_over_all_its_keys_and_ingresses(governor: Governor) -> None:
    config = {"projects": {"shop": ProjectConfig(limits=LimitSettings(requests_per_minute=9))}}
    ingresses = [Ingress(governor, name, **config) for name in ("one", "two", "three")]
    passed = 0
    for turn in range(30):
        tenant = {"key_id": f"key_{turn}", "project": "shop"}
        try:
            await ingresses[turn % 3].call(tenant=tenant)
        except RateLimited:
            continue
        passed += 1
    assert passed == 9


async def test_a_client_is_told_the_limit_with_the_least_left(governor: Governor) -> None:
    one = Ingress(governor)
    limits = Limits(requests_per_minute=5, requests_per_hour=1000, tokens_per_minute=100)
    passed = await one.call(limits)
    shown = told(passed)
    resets = int(shown.pop("x-ratelimit-reset-requests"))
    assert BEGIN // SECOND + 60 <= resets <= BEGIN // SECOND + 63
    assert BEGIN // SECOND < int(shown.pop("x-ratelimit-reset-tokens")) <= resets + 1
    assert shown == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "90",
    }


async def test_a_refusal_says_which_limit_and_when_to_try_again(
    governor: Governor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one = Ingress(governor)
    limits = Limits(requests_per_minute=1)
    await one.call(limits)
    for _ in range(2):
        with pytest.raises(RateLimited) as error:
            await one.call(limits)
        info = error.value.info
        assert (info.status, info.type, info.code) == (
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
        )
        assert "key k: 1 requests per minute" in info.message
        headers = info.headers()
        assert headers["X-RateLimit-Limit-Requests"] == "1"
        assert headers["X-RateLimit-Remaining-Requests"] == "0"
        assert 60 <= int(headers["Retry-After"]) <= 63
    assert len(governor.asked) == 2
    assert [record.message for record in caplog.records] == ["call refused by a rate"] * 2


async def test_a_call_larger_than_its_limit_is_not_told_to_wait(governor: Governor) -> None:
    one = Ingress(governor)
    with pytest.raises(RateLimited) as error:
        await one.call(Limits(tokens_per_minute=5), queue=True)
    headers = error.value.info.headers()
    assert headers["x-should-retry"] == "false"
    assert "Retry-After" not in headers


async def test_tokens_are_settled_when_the_call_is_over(governor: Governor) -> None:
    one = Ingress(governor)
    limits = Limits(tokens_per_minute=100)
    passed = await one.call(limits, tokens=90)
    passed.release(20)
    passed.release(0)
    await asyncio.sleep(0.1)
    governor.now_ns += 3 * SECOND
    more = await one.call(limits, tokens=70)
    assert told(more)["x-ratelimit-remaining-tokens"] == "10"
    more.release(300)
    await asyncio.sleep(0.1)
    governor.now_ns += 61 * SECOND
    with pytest.raises(RateLimited):
        await one.call(limits, tokens=1)


async def test_a_slot_comes_back_with_the_end_of_its_call(governor: Governor) -> None:
    one, two = Ingress(governor, "one"), Ingress(governor, "two")
    limits = Limits(concurrent=2)
    first = await one.call(limits)
    await two.call(limits)
    with pytest.raises(RateLimited) as error:
        await two.call(limits)
    assert "2 concurrent calls" in error.value.info.message
    first.release(None)
    governor.now_ns += SECOND
    await two.call(limits)


async def test_calls_with_a_queue_wait_for_their_turn_in_order(governor: Governor) -> None:
    one = Ingress(governor)
    limits = Limits(concurrent=1)
    running = await one.call(limits, queue=True)
    order: list[int] = []

    async def wait(number: int) -> None:
        passed = await one.call(limits, queue=True)
        order.append(number)
        passed.release(None)

    async def pass_time() -> None:
        while True:
            governor.now_ns += SECOND // 100
            await asyncio.sleep(0.005)

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    passing = asyncio.create_task(pass_time())
    await asyncio.sleep(0.1)
    assert order == []
    running.release(None)
    await asyncio.gather(*waiting)
    passing.cancel()
    assert order == [0, 1, 2, 3, 4]


async def test_a_queue_ends_at_the_deadline_of_the_call(governor: Governor) -> None:
    one = Ingress(governor)
    limits = Limits(requests_per_hour=1)
    await one.call(limits, queue=True)
    with pytest.raises(RateLimited):
        await one.call(limits, queue=True)


async def test_who_goes_away_while_it_waits_leaves_its_place(governor: Governor) -> None:
    one = Ingress(governor)
    limits = Limits(concurrent=1)
    running = await one.call(limits, queue=True)
    gone = asyncio.create_task(one.call(limits, queue=True))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.wait((gone,))
    assert gone.cancelled()
    running.release(None)
    governor.now_ns += SECOND
    await one.call(limits, queue=True)


async def test_calls_pass_while_the_governor_is_silent(
    governor: Governor, caplog: pytest.LogCaptureFixture
) -> None:
    one = Ingress(governor)
    limits = Limits(concurrent=1, requests_per_minute=1)
    governor.answering.clear()
    first, second = await asyncio.gather(one.call(limits), one.call(limits))
    assert (first.headers, second.headers) == ([], [])
    third = await one.call(limits)
    for passed in (first, second, third):
        passed.release(5)
    assert one.rating.let_through == 3
    assert [record.message for record in caplog.records].count("rates are not enforced") == 1
    governor.answering.set()
    await asyncio.sleep(0.1)
    assert await one.passes(limits=limits) == 1


async def test_slots_of_a_holder_that_ended_are_not_given_back_by_the_next(
    governor: Governor,
) -> None:
    one = Ingress(governor)
    limits = Limits(concurrent=2)
    before = await one.call(limits)
    governor.rates.forget("one", governor.now_ns)
    one.line.holder = "one again"
    await one.call(limits)
    before.release(None)
    await asyncio.sleep(0.05)
    await one.call(limits)
    with pytest.raises(RateLimited):
        await one.call(limits)


async def test_leases_are_for_what_is_wanted_and_come_back_unused(governor: Governor) -> None:
    one = Ingress(governor)
    limits = Limits(requests_per_minute=1000)
    for _ in range(200):
        await one.call(limits)
        governor.now_ns += SECOND // 100
    assert len(governor.asked) < 20
    governor.now_ns += 5 * SECOND
    ask = (RateWant("key:k:requests/m", 1000, 0, 0, 60.0),)
    async with asyncio.timeout(10):
        while governor.take(ask, "two").rates[0].left < 800:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    fresh = await Ingress(governor, "two").call(limits)
    assert told(fresh)["x-ratelimit-remaining-requests"] == "799"


async def test_a_lease_that_always_comes_late_is_used_in_the_end(governor: Governor) -> None:
    one = Ingress(governor)
    governor.delay_ns = 10 * SECOND
    passed = await one.call(Limits(requests_per_minute=10))
    assert told(passed)
    assert len(governor.asked) == 3


async def test_ids_of_any_length_become_short_names(governor: Governor) -> None:
    one = Ingress(governor, limits=LimitConfig(per_user=LimitSettings(requests_per_minute=3)))
    await one.call(tenant={"user": "ü" * 5000})
    (wants,) = governor.asked
    assert len(wants[0].rate) < 130
    assert msgspec.msgpack.encode(wants)
