"""What holds for every plan, whatever is wished, known and measured."""

from hypothesis import given
from hypothesis import strategies as st

from ingress.candidates import Candidate, Need
from ingress.conditions import Condition
from ingress.planning import pick, plan, rank
from ingress.wishes import Wishes
from schemas.catalog import ModelFacts
from tests.planned import Known, candidate, places

FACTS = st.builds(
    ModelFacts,
    context_window=st.none() | st.integers(1, 4000),
    vision=st.none() | st.booleans(),
    tools=st.none() | st.booleans(),
    json_schema=st.none() | st.booleans(),
    quality=st.none() | st.integers(900, 1500),
)
RATES = st.none() | st.tuples(st.integers(0, 10**10), st.integers(0, 10**11))
REGIONS = st.sampled_from(["", "eu", "eu-west-1", "us-east-1"])
CONDITIONS = st.builds(
    Condition,
    broken=st.booleans(),
    first_byte_ms=st.none() | st.floats(0, 60_000),
    total_ms=st.none() | st.floats(0, 600_000),
    error_rate=st.none() | st.floats(0, 1),
)
NEEDS = st.builds(
    Need,
    prompt=st.integers(0, 5000),
    output=st.integers(0, 5000),
    max_tokens=st.none() | st.integers(1, 5000),
    stream=st.booleans(),
    images=st.booleans(),
    tools=st.booleans(),
    schema=st.booleans(),
)
WISHES = st.builds(
    Wishes,
    strategy=st.sampled_from([None, "cost", "speed", "quality", "auto"]),
    max_per_1k_nano=st.none() | st.integers(0, 10**8),
    max_latency_ms=st.none() | st.floats(1, 600_000),
    preferred=st.sampled_from([(), ("p0",), ("p1", "p2")]),
    region=st.sampled_from(["", "eu", "us-east-1"]),
)
DRAWS = st.floats(0, 1, exclude_max=True)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Candidate], Known]:
    count = draw(st.integers(0, 8))
    those = [
        candidate(
            f"p{draw(st.integers(0, 3))}/m{number}",
            draw(RATES),
            draw(REGIONS),
            draw(st.booleans()),
            draw(FACTS),
        )
        for number in range(count)
    ]
    known = {f"{one.target.provider}/{one.target.engine}": draw(CONDITIONS) for one in those}
    return those, Known(known)


@given(situations(), WISHES, NEEDS, DRAWS, st.integers(1, 5))
def test_a_plan_fulfils_every_wish_and_breaks_its_order_for_nothing_but_what_is_broken(
    situation: tuple[list[Candidate], Known], wishes: Wishes, need: Need, draw: float, most: int
) -> None:
    those, known = situation
    found = plan(those, wishes, need, known, draw=draw, most=most)
    assert len(found.chosen) <= most
    assert len({*places(found)}) == len(found.chosen), "no target is there twice"
    assert len(found.considered) == len(those), "each candidate is told once"
    for one in found.chosen:
        facts, target = one.candidate.facts, one.candidate.target
        condition = known.of(target.provider, target.engine)
        assert not (need.images and facts.vision is False)
        assert not (need.tools and facts.tools is False)
        assert not (need.schema and facts.json_schema is False)
        assert facts.context_window is None or need.prompt <= facts.context_window
        assert not wishes.region or one.candidate.region.startswith(wishes.region)
        if wishes.max_per_1k_nano is not None:
            assert one.cost_nano is not None
            tokens = max(need.prompt + need.output, 1)
            assert one.cost_nano * 1000 <= wishes.max_per_1k_nano * tokens
        if wishes.max_latency_ms is not None and not need.stream:
            assert condition.total_ms is None or condition.total_ms <= wishes.max_latency_ms
    states = [known.of(t.provider, t.engine).broken for t in found.targets]
    assert states == sorted(states), "what is broken comes last"
    if len(found.chosen) < most:
        left = [one for one in found.considered if one not in found.chosen]
        assert all(one.left is not None for one in left), "who is left out, is so for a reason"
    assert bool(found.chosen or found.refused_because()) is bool(those)


@given(situations(), WISHES, NEEDS, DRAWS)
def test_the_same_call_has_the_same_plan(
    situation: tuple[list[Candidate], Known], wishes: Wishes, need: Need, draw: float
) -> None:
    those, known = situation
    assert plan(those, wishes, need, known, draw=draw) == plan(
        those, wishes, need, known, draw=draw
    )


@given(situations(), NEEDS)
def test_nobody_who_may_run_the_call_is_cheaper_better_or_faster_than_the_first(
    situation: tuple[list[Candidate], Known], need: Need
) -> None:
    those = [one._replace(stands_in=False) for one in situation[0]]
    sound = Known(
        {place: one._replace(broken=False) for place, one in situation[1].conditions.items()}
    )
    cheapest = plan(those, Wishes("cost"), need, sound, most=9).chosen
    costs = [one.cost_nano for one in cheapest]
    known = [cost for cost in costs if cost is not None]
    assert costs == [*sorted(known), *[None] * (len(costs) - len(known))]
    best = plan(those, Wishes("quality"), need, sound, most=9).chosen
    ratings = [one.candidate.facts.quality or 0 for one in best]
    assert ratings == sorted(ratings, reverse=True)


@given(situations(), WISHES, NEEDS, NEEDS, DRAWS)
def test_a_ranking_serves_every_call_of_its_kind(
    situation: tuple[list[Candidate], Known], wishes: Wishes, need: Need, other: Need, draw: float
) -> None:
    those, known = situation
    kind = need.rounded()
    assert kind.rounded() == kind
    assert need.prompt <= kind.prompt <= need.prompt * 1.25
    ranking = rank(those, wishes, kind, known)
    call = kind._replace(prompt=need.prompt, max_tokens=other.max_tokens)
    found = pick(ranking, call, known, draw=draw)
    for one in found.chosen:
        window = one.candidate.facts.context_window
        assert window is None or call.prompt + (call.max_tokens or 0) <= window
