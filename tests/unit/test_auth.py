"""Who may enter: every kind of credential, in order, and every way to be refused."""

import ast
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingress import auth, client_keys, credentials, forwarding, jwks, tickets, tokens
from ingress.auth import Authenticator, Headers, Principal
from ledger.access.configured import configured, id_of
from ledger.access.key_text import hint, new_key
from ledger.access.registry import Registry
from ledger.secret import ServerSecret
from schemas.access import Key, Limits, Project, Secret, Team, moment
from schemas.call import Tenant
from schemas.config import Config, JwtConfig, KeyConfig, KeyPolicy, ProjectConfig
from schemas.errors import Forbidden, NexusError, Unauthenticated, Unavailable
from schemas.event import Event
from schemas.ids import Clock
from tests import sample_events as sample
from tests.ingress_doors import Known, authenticator
from tests.sample_events import NOON, SECOND

SECRET = "the server secret of a test"
ADMIN = "nx-admin-0123456789abcdef"
PLAIN = "a-configured-key"
HOUR = 3600 * SECOND


def text_of(number: int) -> str:
    """A well-formed key, another one for each number."""
    return new_key(lambda _: hashlib.sha256(b"%d" % number).digest())


class Door:
    """An ingress's door; its keys come by events, as the ledger would bring them."""

    def __init__(self, feed: Known = Known(), **settings: Any) -> None:  # noqa: B008
        self.now_ns = NOON
        self.config = Config(
            **{"admin_token": ADMIN, "api_keys": (PLAIN,), "secret": (SECRET,), **settings}
        )
        self.registry = Registry(configured(self.config))
        self.secret = ServerSecret((SECRET,))
        self.feed = feed
        self.keys: Authenticator = authenticator(
            self.config, self.registry, feed, clock=Clock(now_ns=lambda: self.now_ns)
        )

    def hear(self, *events: Event) -> None:
        for event in events:
            self.registry.take(sample.stored(self.registry.seq + 1, event))

    def has(self, text: str, id: str = "key_a", **fields: Any) -> Key:
        """The ledger has made a key that the text opens."""
        key = sample.a_key(id, **{"secrets": (self.opens(text),), **fields})
        self.hear(sample.key_created(key))
        return key

    def opens(self, text: str, **fields: Any) -> Secret:
        return Secret(self.secret.digest(text.encode()), hint(text), **fields)

    async def enter(self, text: str | bytes) -> Principal:
        return await self.keys.authenticate(bearer(text))

    async def refuse(self, headers: Headers) -> NexusError:
        with pytest.raises(NexusError) as error:
            await self.keys.authenticate(headers)
        return error.value


def bearer(text: str | bytes) -> Headers:
    return [(b"authorization", b"Bearer " + (text.encode() if isinstance(text, str) else text))]


KEY = text_of(1)
TENANT = Tenant(key_id="key_a")
OTHER = text_of(2)


def changed(text: str, place: int) -> str:
    return text[:place] + ("b" if text[place] != "b" else "c") + text[place + 1 :]


def revoked(door: Door) -> str:
    door.hear(sample.key_revoked(door.has(KEY), NOON - HOUR))
    return KEY


def revoked_and_back(door: Door) -> str:
    key = door.has(KEY)
    door.hear(sample.key_revoked(key, NOON - HOUR), sample.key_updated(key))
    return KEY


def expired(door: Door) -> str:
    door.has(KEY, expires_at=moment(NOON))
    return KEY


def revoked_and_expired(door: Door) -> str:
    door.hear(sample.key_revoked(door.has(KEY, expires_at=moment(NOON - HOUR)), NOON))
    return KEY


def replaced(door: Door) -> str:
    door.has(KEY, secrets=(door.opens(OTHER), door.opens(KEY, until=moment(NOON - SECOND))))
    return KEY


def forgotten(door: Door) -> str:
    key = door.has(KEY)
    door.hear(sample.key_rotated(msgspec.structs.replace(key, secrets=(door.opens(OTHER),))))
    return KEY


def of_another_server(door: Door) -> str:
    digest = ServerSecret(("the secret of another server",)).digest(KEY.encode())
    door.has(KEY, secrets=(Secret(digest),))
    return KEY


def _configured_expired(door: Door) -> str:
    return "an-expired-configured-key"


UNKNOWN, MISTYPED = "not known here", "not complete or mistyped"
# name: (what is sent, its code, words of the reason)
BAD: dict[str, tuple[Callable[[Door], str | bytes], str, str]] = {
    "unknown": (lambda _: "whatever", "invalid_api_key", UNKNOWN),
    "unknown to the key store": (lambda _: KEY, "invalid_api_key", UNKNOWN),
    "too short": (lambda _: KEY[:-1], "invalid_api_key", MISTYPED),
    "too long": (lambda _: f"{KEY}a", "invalid_api_key", MISTYPED),
    "nothing but our prefix": (lambda _: "nx-", "invalid_api_key", MISTYPED),
    "wrong checksum": (lambda _: changed(KEY, 51), "invalid_api_key", MISTYPED),
    "one letter wrong": (lambda _: changed(KEY, 20), "invalid_api_key", MISTYPED),
    "two letters swapped": (
        lambda _: KEY[:4] + KEY[5] + KEY[4] + KEY[6:],
        "invalid_api_key",
        MISTYPED,
    ),
    "a sign in it": (lambda _: f"{KEY[:9]}-{KEY[10:]}", "invalid_api_key", MISTYPED),
    "in capitals": (lambda _: f"NX-{KEY[3:]}", "invalid_api_key", UNKNOWN),
    "a space in it": (lambda _: "what ever", "invalid_api_key", "spaces or characters"),
    "a control character": (lambda _: b"what\x01ever", "invalid_api_key", "spaces or characters"),
    "letters of Greek": (lambda _: "κλειδί", "invalid_api_key", "spaces or characters"),
    "a key and more": (lambda _: f"{KEY} {KEY}", "invalid_api_key", MISTYPED),
    "a newline of Unicode": (lambda _: f"{KEY}\u2028", "invalid_api_key", MISTYPED),
    "100 kB": (lambda _: "x" * 100_000, "invalid_api_key", "longer than any key"),
    "100 kB with our prefix": (lambda _: "nx-" + "x" * 100_000, "invalid_api_key", MISTYPED),
    "a provider's key": (lambda _: "sk-0123456789", "invalid_api_key", UNKNOWN),
    "revoked": (revoked, "key_revoked", "revoked at 2026-09-21T13:13:20Z"),
    "revoked, then changed": (revoked_and_back, "key_revoked", "revoked at"),
    "revoked and expired": (revoked_and_expired, "key_revoked", "revoked at"),
    "expired": (expired, "key_expired", "expired at 2026-09-21T14:13:20Z"),
    "expired in the configuration": (_configured_expired, "key_expired", "expired at"),
    "replaced": (replaced, "key_rotated", "refused since 2026-09-21T14:13:19Z"),
    "replaced and forgotten": (forgotten, "invalid_api_key", UNKNOWN),
    "of another server": (of_another_server, "invalid_api_key", UNKNOWN),
    "admin token with one letter less": (lambda _: ADMIN[:-1], "invalid_api_key", MISTYPED),
    "configured key with one letter more": (lambda _: f"{PLAIN}x", "invalid_api_key", UNKNOWN),
    "digest of the admin token": (
        lambda _: hashlib.sha256(ADMIN.encode()).hexdigest(),
        "invalid_api_key",
        UNKNOWN,
    ),
    "id of a configured key": (lambda _: id_of(PLAIN), "invalid_api_key", UNKNOWN),
}


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key", b"x-nexus-token"])
@pytest.mark.parametrize("name", BAD)
async def test_a_bad_key_is_refused_with_its_reason(name: str, header: bytes) -> None:
    make, code, reason = BAD[name]
    door = Door(
        keys={"old": KeyConfig(key="an-expired-configured-key", expires_at=moment(NOON - 1))}
    )
    made = make(door)
    text = made if isinstance(made, bytes) else made.encode()
    value = b"Bearer " + text if header == b"authorization" else text
    error = await door.refuse([(header, value)])
    assert isinstance(error, Unauthenticated)
    assert (error.info.status, error.info.code) == (401, code)
    assert reason in error.info.message
    assert text.decode("latin-1") not in error.info.message or len(text) < 4


async def test_without_a_credential_the_refusal_says_how_to_send_one() -> None:
    for headers in ([], bearer(""), [(b"x-api-key", b" ")], [(b"x-nexus-app", b"shop")]):
        error = await Door().refuse(headers)
        assert (error.info.status, error.info.code) == (401, "missing_api_key")


@pytest.mark.parametrize("value", [b"Basic dTpw", b"a-configured-key", b"Digest x", b"BearerX y"])
async def test_another_scheme_than_bearer_is_named_as_the_reason(value: bytes) -> None:
    error = await Door().refuse([(b"authorization", value)])
    assert (error.info.status, error.info.code) == (401, "invalid_api_key")
    assert "Bearer" in error.info.message
    assert value.decode() not in error.info.message


async def test_the_scheme_may_be_written_in_any_case() -> None:
    for scheme in (b"bearer", b"BEARER", b"Bearer "):
        headers = [(b"authorization", scheme + b" " + PLAIN.encode())]
        assert (await Door().keys.authenticate(headers)).kind == "key"


async def test_the_first_valid_credential_counts() -> None:
    door = Door()
    door.has(KEY, "key_a")
    door.has(OTHER, "key_b")
    token, api_key = (b"x-nexus-token", KEY.encode()), (b"x-api-key", OTHER.encode())
    admin = (b"authorization", f"Bearer {ADMIN}".encode())
    unused = (b"authorization", b"Bearer unused")
    cases: list[tuple[Headers, str]] = [
        ([admin, api_key, token], "key_a"),
        ([admin, api_key], "key_b"),
        ([admin], "admin"),
        ([unused, token], "key_a"),
        ([(b"x-nexus-token", b"wrong"), api_key, admin], "key_b"),
        ([(b"x-nexus-token", b"wrong"), (b"x-api-key", b"nx-wrong"), admin], "admin"),
        ([(b"authorization", b"Basic dTpw"), api_key], "key_b"),
    ]
    for headers, key_id in cases:
        assert (await door.keys.authenticate(headers)).tenant.key_id == key_id


async def test_when_none_is_valid_the_refusal_is_about_the_first_one_sent() -> None:
    door = Door()
    revoked(door)
    sent = [(b"authorization", b"Bearer nx-short"), (b"x-api-key", KEY.encode())]
    assert (await door.refuse(sent)).info.code == "key_revoked"
    assert UNKNOWN in (await door.refuse([*sent, (b"x-nexus-token", b"no")])).info.message


async def test_a_key_brings_its_tenant_and_what_project_and_team_say() -> None:
    door = Door()
    door.hear(
        sample.project_set(
            Project(
                id="shop",
                team="web",
                allowed_models=("gpt-*",),
                tier="pro",
                limits=Limits(requests_per_minute=60),
                payloads="redacted",
            )
        ),
        sample.team_set(Team(id="web", allowed_models=("*-mini",), limits=Limits(concurrent=9))),
    )
    own = Limits(tokens_per_minute=100)
    door.has(
        KEY, team="", user="ann", name="bot", limits=own, on_disconnect="drain", project="shop"
    )
    principal = await door.enter(KEY)
    tenant = principal.tenant
    assert (tenant.key_id, tenant.project, tenant.team) == ("key_a", "shop", "web")
    assert (tenant.user, tenant.app) == ("ann", "bot")
    assert principal.models == (("gpt-*",), ("*-mini",))
    assert principal.limits == own
    assert (principal.tier, principal.payloads) == ("pro", "redacted")
    assert principal.on_disconnect == "drain"
    assert (principal.kind, principal.admin) == ("key", False)


async def test_what_a_key_says_itself_comes_before_its_project_and_team() -> None:
    door = Door()
    door.hear(
        sample.project_set(Project(id="shop", team="web", tier="pro", payloads="redacted")),
        sample.team_set(Team(id="web", tier="free")),
        sample.team_set(Team(id="retail", tier="free")),
    )
    door.has(KEY, "key_a", team="retail", tier="enterprise", payloads="none")
    door.has(OTHER, "key_b", project="", team="retail")
    first, second = await door.enter(KEY), await door.enter(OTHER)
    assert (first.tenant.team, first.tier, first.payloads) == ("retail", "enterprise", "none")
    assert (second.tenant.team, second.tier, second.payloads) == ("retail", "free", None)


async def test_the_application_is_what_the_header_says_else_the_name_of_the_key() -> None:
    door = Door()
    door.has(KEY, name="bot")
    assert (await door.enter(KEY)).tenant.app == "bot"
    named = await door.keys.authenticate([*bearer(KEY), (b"x-nexus-app", b"x" * 500)])
    assert named.tenant.app == "x" * 128
    assert (await door.enter(KEY)).tenant.app == "bot"


async def test_a_change_counts_from_the_next_request_on() -> None:
    door = Door()
    key = door.has(KEY)
    assert (await door.enter(KEY)).tier == ""
    door.hear(sample.key_updated(msgspec.structs.replace(key, tier="pro")))
    assert (await door.enter(KEY)).tier == "pro"
    door.hear(sample.team_set(Team(id="retail", allowed_models=("o3",))))
    assert (await door.enter(KEY)).models == (("o3",),)
    assert (await door.enter(PLAIN)).models == ()
    door.hear(sample.key_revoked(key))
    assert (await door.refuse(bearer(KEY))).info.code == "key_revoked"


async def test_expiry_is_looked_at_every_time() -> None:
    door = Door()
    door.has(KEY, expires_at=moment(NOON + SECOND))
    for step in (0, 1):
        door.now_ns = NOON + step * (SECOND - 1000)
        assert await door.enter(KEY)
    door.now_ns = NOON + SECOND
    assert (await door.refuse(bearer(KEY))).info.code == "key_expired"


async def test_an_old_secret_works_through_its_grace_and_the_new_one_for_ever() -> None:
    door = Door()
    key = door.has(KEY)
    secrets = (door.opens(OTHER), door.opens(KEY, until=moment(NOON + HOUR)))
    door.hear(sample.key_rotated(msgspec.structs.replace(key, secrets=secrets)))
    old, new = await door.enter(KEY), await door.enter(OTHER)
    assert old.tenant == new.tenant
    door.now_ns = NOON + HOUR
    assert (await door.refuse(bearer(KEY))).info.code == "key_rotated"
    assert not door.keys.stands(old)
    assert door.keys.stands(new)
    assert await door.enter(OTHER)


async def test_after_a_change_of_the_server_secret_keys_of_both_are_known() -> None:
    new = "the next server secret of a test"
    door = Door(secret=(new, SECRET))
    door.has(KEY, "key_a")
    door.has(OTHER, "key_b", secrets=(Secret(ServerSecret((new,)).digest(OTHER.encode())),))
    assert [(await door.enter(text)).tenant.key_id for text in (KEY, OTHER)] == ["key_a", "key_b"]


AWAY = [Known(loaded=False, fresh=False), Known(loaded=True, fresh=False)]


@pytest.mark.parametrize("feed", AWAY)
async def test_while_the_key_store_is_away_an_unknown_key_may_be_good(feed: Known) -> None:
    door = Door(feed)
    error = await door.refuse(bearer(KEY))
    assert isinstance(error, Unavailable)
    assert (error.info.status, error.info.code) == (503, "key_store_away")
    assert error.info.headers() == {"Retry-After": "1"}
    for never in ("whatever", changed(KEY, 9), "nx-"):
        assert (await door.refuse(bearer(never))).info.status == 401


@pytest.mark.parametrize("feed", AWAY)
async def test_while_the_key_store_is_away_what_is_known_serves(feed: Known) -> None:
    door = Door(feed)
    revoked_key = door.has(OTHER, "key_b")
    door.hear(sample.key_revoked(revoked_key))
    door.has(KEY)
    assert (await door.enter(KEY)).tenant.key_id == "key_a"
    assert (await door.enter(PLAIN)).tenant.key_id == id_of(PLAIN)
    assert (await door.enter(ADMIN)).admin
    assert (await door.refuse(bearer(OTHER))).info.code == "key_revoked"
    sent = [*bearer(text_of(3)), (b"x-nexus-token", PLAIN.encode())]
    assert (await door.keys.authenticate(sent)).kind == "key"


async def test_only_the_admin_token_is_the_administrator() -> None:
    door = Door(target_url="https://api.example.com/v1")
    door.has(KEY)
    admin = await door.keys.require_admin(bearer(ADMIN))
    assert (admin.admin, admin.kind, admin.tenant.key_id) == (True, "admin", "admin")
    for text in (KEY, PLAIN, "sk-of-some-client"):
        with pytest.raises(Forbidden) as error:
            await door.keys.require_admin(bearer(text))
        assert (error.value.info.status, error.value.info.type) == (403, "permission_error")
    with pytest.raises(Unauthenticated):
        await door.keys.require_admin([])


async def test_policies_of_the_configuration_act() -> None:
    door = Door(
        key_policies={id_of(PLAIN): KeyPolicy(allowed_models=("chat",), rate_limit_per_minute=30)}
    )
    principal = await door.enter(PLAIN)
    assert principal.limits == Limits(requests_per_minute=30)
    assert principal.allows("chat")
    with pytest.raises(Forbidden) as error:
        principal.require_model("gpt-4o")
    info = error.value.info
    assert (info.status, info.type, info.code) == (403, "permission_error", "model_not_allowed")
    assert info.param == "model"
    assert "'gpt-4o'" in info.message
    assert "chat" in info.message


async def test_a_key_of_the_configuration_has_a_name_a_project_and_an_end() -> None:
    door = Door(
        keys={
            "ci": KeyConfig(
                key="ci-key", project="shop", user="robot", expires_at=moment(NOON + HOUR)
            )
        },
        projects={"shop": ProjectConfig(team="web", allowed_models=("gpt-*",))},
    )
    principal = await door.enter("ci-key")
    assert (principal.tenant.key_id, principal.tenant.team) == ("ci", "web")
    assert principal.models == (("gpt-*",),)
    door.now_ns += HOUR
    assert (await door.refuse(bearer("ci-key"))).info.code == "key_expired"
    assert not door.keys.stands(principal)


def test_every_list_of_patterns_must_allow_one_of_the_names() -> None:
    principal = Principal(TENANT, models=(("gpt-*", "chat"), ("*4o*",)))
    assert principal.allows("gpt-4o")
    assert principal.allows("chat", "gpt-4o-mini")
    assert not principal.allows("gpt-3.5")
    assert not principal.allows("chat")
    assert Principal(TENANT).allows("anything")


PASSES: dict[str, Any] = {"target_url": "https://api.example.com/v1"}


async def test_with_a_target_url_a_provider_key_is_let_through() -> None:
    door = Door(**PASSES)
    first, second = await door.enter("sk-first-client"), await door.enter("sk-second-client")
    assert (first.kind, first.admin, first.models) == ("client", False, ())
    digest = door.secret.digest(b"sk-first-client").hex()
    assert first.tenant.key_id == f"client_{digest[:12]}"
    assert first.tenant.key_id != second.tenant.key_id
    assert await Door(secret=(), **PASSES).enter("sk-first-client")
    by_api_key = await door.keys.authenticate([(b"x-api-key", b"sk-first-client")])
    assert by_api_key == first
    assert door.keys.stands(first)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([(b"x-nexus-token", b"sk-of-some-client")], "only our own belong there"),
        (bearer("sk-abcd"), "too short"),
        (bearer("sk-" + "x" * 510), "too long"),
        (bearer("sk-some thing"), "a space"),
        (bearer("sk-söme-thing"), "not ASCII"),
        (bearer("SK-OF-SOME-CLIENT"), "another prefix"),
        (bearer("pk-of-some-client"), "another prefix"),
        (bearer(f"nx-{'x' * 20}"), "ours"),
        (bearer(text_of(7)), "ours, and unknown"),
        (bearer("sk-expired-and-ours"), "ours, and over"),
    ],
)
async def test_what_is_no_provider_key_is_not_let_through(headers: Headers, why: str) -> None:
    ours = KeyConfig(key="sk-expired-and-ours", expires_at=moment(NOON - 1))
    error = await Door(keys={"old": ours}, **PASSES).refuse(headers)
    assert error.info.status == 401, why


async def test_a_configured_key_that_looks_like_a_provider_key_is_ours() -> None:
    door = Door(api_keys=("sk-of-this-gateway",), **PASSES)
    assert (await door.enter("sk-of-this-gateway")).kind == "key"


async def test_a_principal_stands_until_its_key_does_not() -> None:
    door = Door()
    key = door.has(KEY, expires_at=moment(NOON + HOUR))
    by_key, by_admin, by_plain = [await door.enter(text) for text in (KEY, ADMIN, PLAIN)]
    assert door.keys.stands(by_key)
    door.now_ns += HOUR
    assert not door.keys.stands(by_key)
    door.now_ns = NOON
    door.hear(sample.key_rotated(msgspec.structs.replace(key, secrets=(door.opens(OTHER),))))
    ended = door.keys.end_of(by_key)
    assert ended is not None
    assert ended.info.code == "key_rotated"
    door.hear(sample.key_revoked(key))
    assert door.keys.stands(by_admin)
    assert door.keys.stands(by_plain)
    assert not door.keys.stands(by_key)


async def test_a_principal_whose_key_is_not_here_yet_is_given_the_time_to_come() -> None:
    principal = Principal(TENANT, secret=bytes(8))
    assert not Door().keys.stands(principal)
    assert Door(Known(loaded=True, fresh=False)).keys.stands(principal)


async def test_more_keys_than_are_remembered_are_all_known() -> None:
    door = Door()
    texts = [text_of(number) for number in range(auth._HELD + 10)]
    for number, text in enumerate(texts):
        door.has(text, f"key_{number}", project="", team="")
    for _ in range(2):
        for number, text in enumerate(texts):
            assert (await door.enter(text)).tenant.key_id == f"key_{number}"
    assert len(door.keys._held) <= auth._HELD


def test_keys_of_ours_are_found_in_any_text() -> None:
    door = Door(api_keys=("plain", "with=sign"))
    for text in (KEY, f"key={KEY}", f"a,{KEY};b", "x plain y", "k=plain", "with=sign", ADMIN):
        assert door.keys.hold_any(text.encode()), text
    for text in ("", "plainer", "nothing of ours", "onx-", "sk-of-some-client", "linux x64"):
        assert not door.keys.hold_any(text.encode()), text


DOORS = (auth, client_keys, credentials, forwarding, jwks, tickets, tokens)
# Neither side is what a client could guess at: both are ours, or what is compared is public.
HARMLESS = {
    "nanoseconds(key.expires_at) == until_ns",
    "self._version != self._registry.version",
    "self._jwks.version != self._version",
    "claims.iss != issuer",
    "base64.urlsafe_b64encode(data).rstrip(b'=') == part",
    "document != self._document",
    "fits == algorithm",
    "jwk.get('alg', name) != name",
    "name == PROVIDER_KEY",
}


@pytest.mark.parametrize("module", DOORS, ids=lambda module: module.__name__)
def test_no_secret_is_compared_letter_by_letter(module: Any) -> None:
    """`==` ends at the first difference, which can be measured from outside."""
    tree = ast.parse(Path(module.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            sides = (node.left, *node.comparators)
            counted = any(
                isinstance(side, ast.Constant)
                or (isinstance(side, ast.Call) and ast.unparse(side.func) == "len")
                or ast.unparse(side).isupper()
                for side in sides
            )
            assert counted or ast.unparse(node) in HARMLESS, ast.unparse(node)


def test_nobody_pays_for_tokens_who_has_none() -> None:
    code = "import sys, ingress.auth; sys.exit('jwt' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert not JwtConfig().enabled
