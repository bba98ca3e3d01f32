"""Who may enter, by a key of ours: with which tenant, for how long, and what it may use."""

import msgspec
import pytest

from ingress import auth
from ingress.auth import Headers, Principal
from ledger.access.configured import id_of
from ledger.secret import ServerSecret
from schemas.access import Limits, Project, Secret, Team, moment
from schemas.call import Tenant
from schemas.config import KeyConfig, KeyPolicy, ProjectConfig
from schemas.errors import Forbidden, Unauthenticated
from tests import sample_events as sample
from tests.ingress_doors import Known
from tests.key_door import ADMIN, HOUR, KEY, OTHER, PLAIN, SECRET, Door, bearer, text_of
from tests.sample_events import NOON, SECOND

TENANT = Tenant(key_id="key_a")


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
