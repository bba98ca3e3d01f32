"""What there is to choose from: all targets that the router knows, with their facts."""

import re
from collections.abc import Sized
from typing import NamedTuple

import msgspec

from ingress.candidates import Candidate, place_of
from ingress.request import Operation
from ingress.routing import Brought, Router
from schemas.call import Target
from schemas.catalog import ModelFacts
from schemas.globs import is_pattern

_UNKNOWN = ModelFacts()
# What the names of engines say that nothing else is known of, and that hold no conversation.
_NO_CHAT = re.compile(r"embed|rerank|whisper|tts|transcribe|moderation|dall-e|image|sora|veo")
_MOST_OPEN, _REMEMBERED, _MOST_FACTS = 32, 4096, 16_384
_EMBEDDING, _TEST = "embedding", "test"


class Named(NamedTuple):
    """The candidates of one name: its own places, best first, and those that stand in for them."""

    own: tuple[Candidate, ...]
    stand_ins: tuple[Candidate, ...]


class Choices:
    """The candidates of one router, kept for the minute that their prices hold for."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._facts: dict[tuple[str, str], ModelFacts] = {}
        for name in router.catalog.names():
            facts = router.catalog.facts(name) or _UNKNOWN
            for place in facts.engines.items():
                self._facts.setdefault(place, facts)
        self._known: dict[tuple[str, str, str], ModelFacts] = {}
        self._open: dict[tuple[Operation, Brought], tuple[Candidate, ...]] = {}
        self._named: dict[tuple[str, tuple[str, ...], Brought], Named] = {}
        self._minute = 0

    def of(self, name: str, target: Target, *, stands_in: bool = False) -> Candidate:
        """A target of a name, with what is known of it."""
        provider = self._router.config.providers.get(target.provider)
        region = provider.region if provider is not None else ""
        return Candidate(name, target, self._facts_of(name, target), region, stands_in)

    def open(self, operation: Operation, brought: Brought, minute: int) -> tuple[Candidate, ...]:
        """Every target of a configured or built-in name that can do the operation, once; the mock
        only where there is nothing else. `minute` is the time: prices may change with it."""
        self._forget(minute, self._open, _MOST_OPEN)
        found = self._open.get((operation, brought))
        if found is None:
            found = self._open[operation, brought] = self._gathered(operation, brought)
        return found

    def named(self, name: str, fallbacks: tuple[str, ...], brought: Brought, minute: int) -> Named:
        """The candidates of a name whose fallbacks are those."""
        self._forget(minute, self._named, _REMEMBERED)
        key = (name, fallbacks, brought)
        found = self._named.get(key)
        if found is None:
            own = [self.of(name, one) for one in self._router.everywhere(name, brought)]
            found = self._named[key] = Named(tuple(own), self.standing_in(fallbacks, brought))
        return found

    def standing_in(self, names: tuple[str, ...], brought: Brought) -> tuple[Candidate, ...]:
        """The candidates of fallbacks, each under a name of its own."""
        targets = self._router.standing_in(names, brought)
        return tuple([self.of(place_of(target), target, stands_in=True) for target in targets])

    def _forget(self, minute: int, kept: Sized, most: int) -> None:
        if minute != self._minute or len(kept) >= most:
            self._open.clear()
            self._named.clear()
            self._minute = minute

    def _gathered(self, operation: Operation, brought: Brought) -> tuple[Candidate, ...]:
        found: dict[tuple[str, str], Candidate] = {}
        names = (*self._router.config.models, *self._router.catalog.names())
        for name in dict.fromkeys(names):
            if is_pattern(name):
                continue
            for target in self._router.everywhere(name, brought):
                candidate = self.of(name, target)
                if _can(candidate, operation):
                    found.setdefault((target.provider, target.engine), candidate)
        serious = tuple([one for one in found.values() if one.facts.category != _TEST])
        return serious or tuple(found.values())

    def _facts_of(self, name: str, target: Target) -> ModelFacts:
        key = (name, target.provider, target.engine)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_FACTS:
                self._known.clear()
            known = self._known[key] = self._looked_up(name, target)
        return known

    def _looked_up(self, name: str, target: Target) -> ModelFacts:
        """By the place, by the engine's name, by our own name unless it stands for another engine;
        the context window may be in the price list."""
        catalog, entry = self._router.catalog, self._router.entry(name)
        own = None if entry is not None and entry.engine else catalog.facts(name)
        place = (target.provider, target.engine)
        facts = self._facts.get(place) or catalog.facts(target.engine) or own or _UNKNOWN
        listed = self._router.listed(target.provider, target.engine)
        if facts.context_window is None and listed is not None:
            facts = msgspec.structs.replace(facts, context_window=listed.context_window)
        return facts


def _can(candidate: Candidate, operation: Operation) -> bool:
    category = candidate.facts.category
    if operation == "embeddings":
        return category in (_EMBEDDING, _TEST)
    if category is None:
        return _NO_CHAT.search(candidate.target.engine) is None
    return category != _EMBEDDING
