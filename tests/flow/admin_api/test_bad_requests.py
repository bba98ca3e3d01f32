"""Every mistake in a request to the admin API is refused by its name and changes nothing."""

import json
from typing import Any

import httpx
import pytest

from tests.flow.admin_api.asking import INVALID, good, new_key
from tests.flow.gateway import refusal

KEYS, PROJECTS, BUDGETS = "POST /keys", "POST /projects", "POST /budgets"
LONG = "x" * 300_000
NO_OBJECTS: dict[str, tuple[Any, str, str]] = {
    "no JSON": (b"hello", "invalid_json", "The body is not valid JSON: "),
    "half a body": (b'{"name":', "invalid_json", "The body is not valid JSON: "),
    "two bodies": (b"{}{}", "invalid_json", "The body is not valid JSON: "),
    "a list": ([], "invalid_json", "The body is not a JSON object."),
    "a number": (5, "invalid_json", "The body is not a JSON object."),
    "null": (None, "invalid_json", "The body is not a JSON object."),
    "NaN": (b'{"name":NaN}', "invalid_json", "The body is not valid JSON: "),
    "no UTF-8": (b'{"name":"\xff"}', "invalid_encoding", "The body is not valid UTF"),
    "a surrogate": (b'{"name":"\\ud800"}', "invalid_json", "The body is not valid J"),
    "nested": (b'{"x":' + b"[" * 90_000, "invalid_json", "The body is not valid JSON"),
}  # fmt: skip

# name: (where, the body, the field that is wrong, what is said of it)
BAD_VALUES: dict[str, tuple[str, Any, str, str]] = {
    "unknown": (KEYS, {"nmae": "x"}, "nmae", "unknown field; did you mean"),
    "unknown inside": (KEYS, {"limits": {"brust": 1}}, "limits.brust", "unknown f"),
    "an id of our own": (KEYS, {"id": "key_1"}, "id", "unknown field; known"),
    "a name that is none": (KEYS, {"name": 5}, "name", "expected text."),
    "a long name": (KEYS, {"name": "x" * 129}, "name", "expected text of at most 128"),
    "a name of two lines": (KEYS, {"name": "a\nb"}, "name", "expected text without line break"),
    "an id with a space": (
        KEYS, {"project": " a"}, "project",
        "expected text without line breaks, that neither begins nor ends with a space.",
    ),
    "an id with a line break": (
        KEYS, {"team": "a\nb"}, "team", "expected text without line breaks",
    ),
    "no models": (
        KEYS, {"allowed_models": []}, "allowed_models", "expected a list of at least 1 entry.",
    ),
    "models as text": (KEYS, {"allowed_models": "gpt"}, "allowed_models", "expected a list."),
    "a model that is none": (
        KEYS, {"allowed_models": ["a", None]}, "allowed_models.1", "expected text.",
    ),
    "an unknown tier": (
        KEYS, {"tier": "silver"}, "tier", "expected one of free, pro, enterprise, gold.",
    ),
    "no limit at all": (
        KEYS, {"limits": {"burst": 0}}, "limits.burst", "expected a whole number >= 1.",
    ),
    "half a request": (
        KEYS, {"limits": {"requests_per_minute": 0.5}}, "limits.requests_per_minute",
        "expected a whole number.",
    ),
    "a huge limit": (
        KEYS, {"limits": {"burst": 10**13}}, "limits.burst",
        "expected a whole number <= 1000000000000.",
    ),
    "no rate": (
        KEYS, {"limits": {"requests_per_second": 0}}, "limits.requests_per_second",
        "expected a number > 0",
    ),
    "metadata of numbers": (KEYS, {"metadata": {"a": 1}}, "metadata", "an entry: expected"),
    "much metadata": (
        KEYS, {"metadata": {str(number): "" for number in range(33)}}, "metadata",
        "expected an object of at most 32 entries.",
    ),
    "an unknown word": (
        KEYS, {"on_disconnect": "wait"}, "on_disconnect", "expected one of cancel, drain, detach.",
    ),
    "unknown payloads": (
        KEYS, {"payloads": "all"}, "payloads", "expected one of none, redacted, full.",
    ),
    "a day as end": (
        KEYS, {"expires_at": "tomorrow"}, "expires_at",
        "expected a time with its zone, like 2027-01-31T12:00:00Z.",
    ),
    "an end without zone": (
        KEYS, {"expires_at": "2099-01-01T00:00:00"}, "expires_at",
        "expected a time with its zone, like 2027-01-31T12:00:00Z.",
    ),
    "an end that is over": (
        KEYS, {"expires_at": "2020-01-01T00:00:00Z"}, "expires_at",
        "expected a time to come, it is 20",
    ),
    "an end beyond all": (
        KEYS, {"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at",
        "expected a time before the year 9999.",
    ),
    "a budget without period": (
        KEYS, {"budgets": [{"limit_usd": 1}]}, "budgets.0.period", "missing, it has no default.",
    ),
    "two budgets a day": (
        KEYS, {"budgets": [{"period": "day", "limit_usd": 1}] * 2}, "budgets.1.period",
        "there is a budget per day before.",
    ),
    "a budget below nothing": (
        KEYS, {"budgets": [{"period": "day", "limit_usd": -1}]}, "budgets.0.limit_usd",
        "expected a number >= 0",
    ),
    "a budget of somebody else": (
        KEYS, {"budgets": [{"period": "day", "limit_usd": 1, "scope": "team"}]}, "budgets.0.scope",
        "unknown field; known here: hard_stop, limit_usd,",
    ),
    "a project without id": (PROJECTS, {"name": "x"}, "id", "missing, it has no default."),
    "a project with an empty id": (
        PROJECTS, {"id": ""}, "id", "expected text of at least 1 character.",
    ),
    "a project that expires": (
        PROJECTS, {"id": "x", "expires_at": "2099-01-01T00:00:00Z"}, "expires_at",
        "unknown field; known here: allowed_models,",
    ),
    "a team in a team": (
        "POST /teams", {"id": "x", "team": "y"}, "team",
        "unknown field; known here: allowed_models, budgets, id, limits,",
    ),
    "a budget of nobody": (
        BUDGETS, {"scope": "team", "period": "day", "limit_usd": 1}, "id",
        "missing, it names the team.",
    ),
    "a budget of all with an id": (
        BUDGETS, {"scope": "global", "id": "x", "period": "day", "limit_usd": 1}, "id",
        "the scope global is everything, it has no id.",
    ),
    "a budget of an unknown scope": (
        BUDGETS, {"scope": "all", "period": "day", "limit_usd": 1}, "scope",
        "expected one of global, team, project, user, key.",
    ),
    "a budget of an unknown period": (
        BUDGETS, {"scope": "global", "period": "year", "limit_usd": 1}, "period",
        "expected one of day, week, month, total.",
    ),
    "a budget that is text": (
        BUDGETS, {"scope": "global", "period": "day", "limit_usd": "1"}, "limit_usd",
        "expected a number.",
    ),
    "a budget that warns late": (
        BUDGETS, {"scope": "global", "period": "day", "limit_usd": 1, "warning_threshold": 80},
        "warning_threshold", "expected a number <= 1",
    ),
}  # fmt: skip


def sent(admin: httpx.Client, where: str, body: Any) -> httpx.Response:
    method, path = where.split()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return admin.request(method, path, content=data)


@pytest.mark.parametrize(("body", "code", "says"), NO_OBJECTS.values(), ids=NO_OBJECTS)
def test_a_body_that_is_no_json_object_is_told_so(
    admin: httpx.Client, body: Any, code: str, says: str
) -> None:
    error = refusal(sent(admin, KEYS, body), 400, INVALID, code)
    assert error["param"] is None and error["message"].startswith(says), error


@pytest.mark.parametrize(("where", "body", "field", "says"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_body_is_told_what_is_wrong(
    admin: httpx.Client, where: str, body: Any, field: str, says: str
) -> None:
    error = refusal(sent(admin, where, body), 400, INVALID, "invalid_value")
    assert error["param"] == field and error["message"].startswith(f"{field}: {says}"), error


BAD_REQUESTS: dict[str, tuple[str, Any, int, str, str, str | None]] = {
    "no such key": ("GET /keys/key_0", None, 404, "not_found_error", "key_not_found", None),
    "no key to change": ("PATCH /keys/x", {}, 404, "not_found_error", "key_not_found", None),
    "no key to rotate": ("POST /keys/x/rotate", {}, 404, "not_found_error", "key_not_found", None),
    "no key to revoke": ("POST /keys/x/revoke", {}, 404, "not_found_error", "key_not_found", None),
    "no project": ("PATCH /projects/x", {}, 404, "not_found_error", "project_not_found", None),
    "an empty id": ("GET /projects/", None, 404, "not_found_error", "project_not_found", None),
    "a NUL": ("GET /teams/%00%0A", None, 404, "not_found_error", "team_not_found", None),
    "no UTF-8 in an id": ("GET /teams/%FF", None, 404, "not_found_error", "team_not_found", None),
    "no budget": ("GET /budgets/a:b", None, 404, "not_found_error", "budget_not_found", None),
    "limit 0": ("GET /keys?limit=0", None, 400, INVALID, "invalid_value", "limit"),
    "limit many": ("GET /keys?limit=many", None, 400, INVALID, "invalid_value", "limit"),
    "limit 1001": ("GET /keys?limit=1001", None, 400, INVALID, "invalid_value", "limit"),
    "status": ("GET /keys?status=dead", None, 400, INVALID, "invalid_value", "status"),
    "after nothing": ("GET /keys?after=key_0", None, 400, INVALID, "invalid_value", "after"),
    "scope": ("GET /budgets?scope=all", None, 400, INVALID, "invalid_value", "scope"),
    "a deleted key": ("DELETE /keys/x", None, 405, INVALID, "method_not_allowed", None),
    "a large body": ("POST /keys", {"name": LONG}, 413, INVALID, "request_too_large", None),
    "a large patch": ("PATCH /keys/x", {"name": LONG}, 413, INVALID, "request_too_large", None),
}


@pytest.mark.parametrize(
    ("where", "body", "status", "kind", "code", "param"), BAD_REQUESTS.values(), ids=BAD_REQUESTS
)
def test_a_bad_request_is_refused(
    admin: httpx.Client, where: str, body: Any, status: int, kind: str, code: str, param: str | None
) -> None:
    method, path = where.split()
    error = refusal(admin.request(method, path, json=body), status, kind, code)
    assert error["param"] == param and error["message"].isprintable()


@pytest.mark.parametrize("grace", [-1, 2_592_001, 1.5, "1", True])
def test_a_grace_is_whole_seconds_of_a_month_at_most(admin: httpx.Client, grace: Any) -> None:
    key = new_key(admin)
    wrong = admin.post(f"/keys/{key['id']}/rotate", json={"grace_seconds": grace})
    error = refusal(wrong, 400, INVALID, "invalid_value")
    assert error["param"] == "grace_seconds"
    assert len(good(admin.get(f"/keys/{key['id']}"))["secrets"]) == 1
