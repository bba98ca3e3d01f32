"""What a call may cost before it costs anything: an upper bound that holds, and an estimate.

The bound is for money that must not be exceeded: a token is at least one byte of text, media count
as the most that a provider makes of them, every class at the dearest rate that may apply.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ingress.calibration import Ratios
from ingress.capacities import Capacities
from ingress.measure import Measure
from schemas.call import Target
from schemas.money import divide_half_up
from schemas.usage import MILLION, STANDARD_TIERS, Price, Rates, Tier, Usage, cost_of

# What templates and vendors add of their own: around a message, before the first, and for tools.
_MESSAGE = 16
_PREAMBLE = 128
_TOOL = 32
_TOOLS_PREAMBLE = 640
_TOKENS_PER_SECOND = 40
# An answer that may not be longer is not worth its money: such a call is refused instead.
_LEAST_OUTPUT = 64
# Whoever asks for these gets the listed price; with `auto` an account may have chosen another tier.
_LISTED_PRICE = STANDARD_TIERS - {"auto"} | {"standard_only"}
# More than any budget can be, and still an integer that every wire format can carry.
_MOST_NANO = 4_000_000_000_000_000_000


class _Vision(NamedTuple):
    """The most tokens of one image, by the detail that the client asked for."""

    low: int
    high: int
    original: int


# By the engine's name, wherever it is served; the first that fits. Tiles of OpenAI: 4 x 2 at most.
_VISION = (
    (re.compile(r"gpt-4o-mini"), _Vision(2833, 48_169, 48_169)),
    (re.compile(r"(^|[/.-])(gpt-|chatgpt|o\d)"), _Vision(800, 6_500, 25_000)),
    (re.compile(r"claude"), _Vision(5_000, 5_000, 5_000)),
    (re.compile(r"gemini"), _Vision(4_200, 4_200, 4_200)),
    (re.compile(r"gemma|grok|llama|mistral|nova|pixtral"), _Vision(6_600, 6_600, 6_600)),
    (re.compile(r"qwen"), _Vision(16_500, 16_500, 16_500)),
)
# A name that tells nothing, such as a deployment's, may stand for the most of them.
_ANY_VISION = _Vision(16_500, 48_169, 48_169)


class Tokens(NamedTuple):
    """The most prompt tokens of a request at a target: audio and images apart, as they may have
    rates of their own, and what may be anything."""

    text: int
    audio: int
    images: int
    unknown: int

    @property
    def total(self) -> int:
        return self.text + self.audio + self.images + self.unknown


class Estimate(NamedTuple):
    """What a call will probably use; `cost_nano` is None where the price is not known."""

    prompt_tokens: int
    cost_nano: int | None


def largest_prompt(measure: Measure, engine: str, window: int) -> Tokens:
    """The most prompt tokens that a request can become; `window` bounds what cannot be measured."""
    text = measure.text_bytes + measure.messages * _MESSAGE + _PREAMBLE
    if measure.tools:
        text += measure.tools * _TOOL + _TOOLS_PREAMBLE
    vision = _vision(engine)
    images = (
        measure.low_images * vision.low
        + measure.images * vision.high
        + measure.original_images * vision.original
    )
    audio = measure.audio_seconds * _TOKENS_PER_SECOND
    return Tokens(text, audio, images, window if measure.unmeasured else 0)


def upper_bound(measure: Measure, target: Target, output: int, window: int) -> int | None:
    """The most nano-dollars that one attempt at a target can cost, None for an unknown price.

    `output` is the limit of tokens for each choice that the provider is sent, `window` the
    context window of the target's model.
    """
    if target.price is None:
        return None
    prompt = largest_prompt(measure, target.engine, window)
    return _dearest(target.price, measure.tier, prompt, _longest_answer(measure, output))


def bound_of_plan(
    measure: Measure, plan: Iterable[Target], output: int, capacities: Capacities
) -> int | None:
    """The most that one attempt at any of the targets can cost; None where no price is known."""
    bounds = [upper_bound(measure, one, output, capacities.window(one)) for one in plan]
    return max((bound for bound in bounds if bound is not None), default=None)


def output_limit(
    measure: Measure,
    model: str,
    plan: Sequence[Target],
    capacities: Capacities,
    max_cost_nano: int | None = None,
) -> int:
    """The output tokens that each choice of a call may have: what the client set, else the model's
    own limit, and of that no more than its window has room for and `max_cost_nano` pays for."""
    if measure.max_tokens is not None:
        return measure.max_tokens
    # Several providers refuse a call whose prompt and output limit together exceed the window.
    window = min(capacities.window(target) for target in plan)
    room = max(_LEAST_OUTPUT, window - measure.prompt_estimate * 4 // 3)
    limit = min(capacities.output(model, plan), room)
    if max_cost_nano is None:
        return limit
    return max(min(_LEAST_OUTPUT, limit), _paid(measure, plan, capacities, limit, max_cost_nano))


def estimate(measure: Measure, target: Target, output: int, ratios: Ratios) -> Estimate:
    """What a call will probably cost: the prompt as the ledger has learnt it, `output` in full."""
    prompt = round(measure.prompt_estimate * ratios.of(target.provider, target.engine))
    if target.price is None:
        return Estimate(prompt, None)
    usage = Usage(input=prompt, output=measure.choices * output, tier=measure.tier)
    return Estimate(prompt, cost_of(usage, target.price).total)


def _paid(
    measure: Measure, plan: Iterable[Target], capacities: Capacities, limit: int, max_nano: int
) -> int:
    """The most output tokens up to a limit that cost no more at any target; -1 if none do."""
    prompts = [
        (target.price, largest_prompt(measure, target.engine, capacities.window(target)))
        for target in plan
        if target.price is not None
    ]

    def most(output: int) -> int:
        answer = _longest_answer(measure, output)
        return max(
            (_dearest(price, measure.tier, prompt, answer) for price, prompt in prompts), default=0
        )

    return limit if most(limit) <= max_nano else bisect_right(range(limit), max_nano, key=most) - 1


def _longest_answer(measure: Measure, output: int) -> int:
    return measure.choices * output + measure.predicted_bytes


def _dearest(price: Price, tier: str, prompt: Tokens, completion: int) -> int:
    """Of all rates that the request may lead to, the most expensive ones."""
    possible = [
        rates
        for base, longer in _served(price, tier)
        for rates in (base, *(one.rates for one in longer if prompt.total > one.above))
    ]
    most = price.per_request + max(_at(rates, prompt, completion) for rates in possible)
    return min(most, _MOST_NANO)


def _served(price: Price, tier: str) -> list[tuple[Rates, tuple[Tier, ...]]]:
    """The rates, with those of long prompts, at which a call may be served that asks for a tier.

    The usual ones always: what is asked for may be refused or downgraded. Besides them those of the
    tier. A call that asks for none, or for one that the price book does not know, may get what its
    account has chosen, where the vendor lets it choose.
    """
    possible = [(price.rates, price.tiers)]
    if not price.variants or tier in _LISTED_PRICE:
        return possible
    asked = [one for one in price.variants if one.tier == tier]
    others = asked or [one for one in price.variants if one.unasked]
    return [*possible, *((one.rates, one.tiers) for one in others)]


def _at(rates: Rates, prompt: Tokens, completion: int) -> int:
    written = max(rates.cache_write or 0, rates.cache_write_1h or 0)
    text = max(rates.input, rates.cached_input or 0, written)
    heard = max(text, rates.audio_input or 0)
    seen = max(text, rates.image_input or 0)
    went_in = (
        prompt.text * text
        + prompt.audio * heard
        + prompt.images * seen
        + prompt.unknown * max(heard, seen)
    )
    out = max(rates.output, rates.reasoning or 0, rates.audio_output or 0, rates.image_output or 0)
    return divide_half_up(went_in, MILLION) + divide_half_up(completion * out, MILLION)


def _vision(engine: str) -> _Vision:
    return next((vision for name, vision in _VISION if name.search(engine)), _ANY_VISION)
