"""Which of several targets a call runs at: a pure function of what is wished, known and measured.

candidates ─ rank: who may, in which order ─▶ Ranking ─ pick: who can, now ─▶ Plan
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from ingress import strategies
from ingress.candidates import Candidate, Considered, Left, Need, place_of
from ingress.conditions import Condition, Conditions
from ingress.wishes import Wishes
from schemas.call import Target
from schemas.config import Strategy
from schemas.money import format_usd
from schemas.usage import Usage, cost_of

_SHOWN = 3
_EU = ("eu", "europe")


class Ranking(NamedTuple):
    """Who may run calls of a kind: `firsts` in the order of their strategy, `unmeasured` those of
    them that may have their turn before it, and who stands in for them."""

    strategy: Strategy | None
    firsts: tuple[Considered, ...]
    unmeasured: tuple[Considered, ...]
    stand_ins: tuple[Considered, ...]
    refused: tuple[Considered, ...]


class Plan(NamedTuple):
    """Where a call runs: `chosen` in order, the reason for the first, and what they were chosen
    from. Nothing is chosen where nobody fulfils the wishes."""

    chosen: tuple[Considered, ...]
    reason: str
    ranking: Ranking
    too_small: tuple[Considered, ...] = ()

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple([one.candidate.target for one in self.chosen])

    @property
    def considered(self) -> tuple[Considered, ...]:
        """All who were looked at, best first."""
        seen = {id(one.candidate) for one in (*self.chosen, *self.too_small)}
        others = [
            one
            for one in (*self.ranking.firsts, *self.ranking.stand_ins)
            if id(one.candidate) not in seen
        ]
        return (*self.chosen, *others, *self.too_small, *self.ranking.refused)

    def models(self, most: int) -> tuple[str, ...]:
        """The names that were to choose from, best first, and no more than `most` of them."""
        ranked = (*self.chosen, *self.ranking.firsts[:most], *self.ranking.stand_ins[:most])
        names = dict.fromkeys([one.candidate.model for one in ranked])
        return tuple(islice(names, most))

    def refused_because(self) -> str:
        """Which wish excludes what, as a phrase."""
        by_wish: dict[str, list[Considered]] = {}
        for one in (*self.too_small, *self.ranking.refused):
            if one.left is not None:
                by_wish.setdefault(one.left.wish, []).append(one)
        return "; ".join([_excluded(wish, those) for wish, those in by_wish.items()])


def plan(
    candidates: Iterable[Candidate],
    wishes: Wishes,
    need: Need,
    conditions: Conditions,
    *,
    draw: float = 0.0,
    most: int = 4,
    weigh_cost: bool = True,
) -> Plan:
    """The plan of one call: at most `most` targets. `draw` (from 0 up to 1) decides where a
    strategy tries what it does not know; without `weigh_cost`, `auto` does not look at prices."""
    ranking = rank(candidates, wishes, need, conditions, weigh_cost=weigh_cost)
    return pick(ranking, need, conditions, draw=draw, most=most)


def rank(
    candidates: Iterable[Candidate],
    wishes: Wishes,
    need: Need,
    conditions: Conditions,
    *,
    weigh_cost: bool = True,
) -> Ranking:
    """Who may run calls of this kind, best first. What differs from call to call is left to `pick`,
    so that the ranking of thousands of models serves many calls."""
    firsts: list[Considered] = []
    stand_ins: list[Considered] = []
    refused: list[Considered] = []
    usage = Usage(input=need.prompt, output=need.output)
    for candidate in candidates:
        price = candidate.target.price
        cost = None if price is None else cost_of(usage, price).total
        condition = conditions.of(candidate.target.provider, candidate.target.engine)
        left = _unable(candidate, need) or _unwished(candidate, wishes, need, cost, condition)
        group = refused if left is not None else stand_ins if candidate.stands_in else firsts
        group.append(Considered(candidate, cost, condition, left))
    strategy, preferred = wishes.strategy, frozenset(wishes.preferred)
    score = strategies.score(strategy, firsts, need.stream, weigh_cost)
    if score is not None:
        firsts.sort(key=score)
    if preferred:
        firsts.sort(key=lambda one: one.candidate.target.provider not in preferred)
    is_for_speed = strategy == "speed"
    unmeasured = strategies.unmeasured(firsts, preferred, need.stream) if is_for_speed else ()
    return Ranking(strategy, tuple(firsts), tuple(unmeasured), tuple(stand_ins), tuple(refused))


def pick(
    ranking: Ranking,
    need: Need,
    conditions: Conditions,
    *,
    draw: float = 0.0,
    most: int = 4,
    most_firsts: int | None = None,
) -> Plan:
    """The first of a ranking that can run this call now, `most_firsts` of them before who stands in
    for them; what is broken comes last."""
    chosen: list[Considered] = []
    broken: list[Considered] = []
    too_small: list[Considered] = []
    taken: set[tuple[str, str]] = set()
    trial = strategies.to_try(ranking.unmeasured, ranking.firsts, draw)
    for group in (() if trial is None else (trial,), ranking.firsts, ranking.stand_ins):
        is_last = group is ranking.stand_ins
        room = most if is_last or most_firsts is None else min(most, most_firsts)
        for one in group:
            if len(chosen) >= room:
                break
            target = one.candidate.target
            place = (target.provider, target.engine)
            if place in taken:
                continue
            taken.add(place)
            left = _too_small(one.candidate, need)
            if left is not None:
                too_small.append(one._replace(left=left))
                continue
            is_broken = conditions.of(*place).broken
            (broken if is_broken else chosen).append(one)
    chosen += broken[: most - len(chosen)]
    reason = ""
    if chosen:
        reason = strategies.reason(
            ranking.strategy, chosen[0], need.stream, is_trial=chosen[0] is trial
        )
    return Plan(tuple(chosen), reason, ranking, tuple(too_small))


def _unable(candidate: Candidate, need: Need) -> Left | None:
    """What is not known of a model is not held against it."""
    facts = candidate.facts
    if need.images and facts.vision is False:
        return Left("images", "it takes none")
    if need.tools and facts.tools is False:
        return Left("tools", "it calls none")
    if need.schema and facts.json_schema is False:
        return Left("response_format", "it does not answer by a JSON schema")
    return None


def _too_small(candidate: Candidate, need: Need) -> Left | None:
    window, longest = candidate.facts.context_window, candidate.facts.max_tokens
    asked = need.max_tokens or 0
    if window is not None and need.prompt + asked > window:
        return Left("the call's size", f"its context window is {window} tokens")
    if longest is not None and asked > longest:
        return Left("max_tokens", f"its answers have at most {longest}")
    return None


def _unwished(
    candidate: Candidate, wishes: Wishes, need: Need, cost: int | None, condition: Condition
) -> Left | None:
    """A price and a region have to be known, a time need not: somebody has to be the first."""
    if wishes.region and not _is_in(candidate.region, wishes.region):
        where = f"its region is {candidate.region}" if candidate.region else "its region is unknown"
        return Left("routing.region", where)
    if wishes.max_per_1k_nano is not None:
        tokens = max(need.prompt + need.output, 1)
        if cost is None:
            return Left("routing.max_cost_per_1k_tokens", "its price is not known")
        if cost * 1000 > wishes.max_per_1k_nano * tokens:
            asks = format_usd(cost * 1000 // tokens)
            return Left("routing.max_cost_per_1k_tokens", f"1,000 tokens cost about {asks} USD")
    if wishes.max_latency_ms is not None:
        took = strategies.time_of(condition, need.stream)
        if took is not None and took > wishes.max_latency_ms:
            return Left("routing.max_latency_ms", f"it takes about {took:.0f} ms")
    return None


def _is_in(region: str, wanted: str) -> bool:
    """`eu` is any of eu, eu-west-1 and europe-west1."""
    region, wanted = region.lower(), wanted.lower()
    names = _EU if wanted in _EU else (wanted,)
    return any(region == name or region.startswith(f"{name}-") for name in names)


def _excluded(wish: str, those: Sequence[Considered]) -> str:
    shown = [
        f"{place_of(one.candidate.target)} ({one.left.says})"
        for one in those[:_SHOWN]
        if one.left is not None
    ]
    more = f" and {len(those) - _SHOWN} more" if len(those) > _SHOWN else ""
    return f"{wish} excludes {', '.join(shown)}{more}"
