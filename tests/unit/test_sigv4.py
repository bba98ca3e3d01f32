"""SigV4 signs as botocore does, whatever the path, headers and body."""

from collections.abc import Mapping
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import example, given
from hypothesis import strategies as st

from workers.providers.bedrock.sigv4 import Credentials, Scope, signed

KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = 1_440_938_160
OWN = {"host", "authorization", "date", "x-amz-date", "x-amz-security-token"}
# What botocore leaves unsigned because it may change on its way; we sign all that we are given.
UNSIGNED = {*botocore.auth.SIGNED_HEADERS_BLACKLIST, "x-amz-content-sha256"}


def by_botocore(
    credentials: Credentials,
    scope: Scope,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    now: int,
) -> Mapping[str, str]:
    """The headers that botocore sends in our place."""
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    moment = datetime.fromtimestamp(now, UTC)
    key = BotoCredentials(*credentials[:2], credentials.session_token or None)
    with patch.object(botocore.auth, "get_current_datetime", lambda: moment):
        SigV4Auth(key, scope.service, scope.region).add_auth(request)
    return dict(request.headers.items())


segments = st.one_of(
    st.text(max_size=12).map(lambda text: quote(text, safe="")),
    st.sampled_from(["", ".", "..", "~", "a:b", "%3A", "%2F", "*", "'()", "arn%3Aaws%3Ax%2Fy"]),
)
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))
queries = st.lists(
    st.tuples(
        st.sampled_from(["a", "A", "b", "a-b", "%20"]), st.sampled_from(["", "=", "=1", "=a%2F"])
    ),
    max_size=4,
).map(lambda pairs: "&".join(name + value for name, value in pairs))
hosts = st.sampled_from(
    ["a.example", "a.example:443", "a.example:80", "127.0.0.1:8080", "[::1]:81"]
)
printable = st.characters(min_codepoint=32, max_codepoint=126)
names = st.text("abcXYZ-019", min_size=1, max_size=8).filter(
    lambda name: name.lower() not in OWN | UNSIGNED
)
headers = st.dictionaries(names, st.text(printable, max_size=20), max_size=5).map(
    lambda found: {name: found[name] for name in {one.lower(): one for one in found}.values()}
)
credentials = st.builds(
    Credentials,
    st.just("AKIDEXAMPLE"),
    st.text(printable.filter(lambda one: one != " "), min_size=1, max_size=40),
    st.sampled_from(["", "token/with+signs=="]),
)


@given(
    credentials=credentials,
    scheme=st.sampled_from(["http", "https"]),
    host=hosts,
    path=paths,
    query=queries,
    headers=headers,
    body=st.binary(max_size=60),
    now=st.integers(0, 4_000_000_000),
)
@example(KEY, "https", "a.example", "/model/arn%3Aaws%3Abedrock%2Fx/converse", "", {}, b"{}", NOW)
def test_the_same_request_at_the_same_time_has_botocores_signature(
    credentials: Credentials,
    scheme: str,
    host: str,
    path: str,
    query: str,
    headers: dict[str, str],
    body: bytes,
    now: int,
) -> None:
    url = f"{scheme}://{host}{path}" + (f"?{query}" if query else "")
    scope = Scope("eu-central-1", "bedrock")
    ours = signed(credentials, scope, "POST", url, headers, body, now * 1_000_000_000 + 5)
    theirs = by_botocore(credentials, scope, "POST", url, headers, body, now)
    assert ours["Authorization"] == theirs["Authorization"]
    assert ours["X-Amz-Date"] == theirs["X-Amz-Date"]
    assert ours.get("X-Amz-Security-Token") == theirs.get("X-Amz-Security-Token")
    assert {name: ours[name] for name in headers} == headers


def test_the_documented_example_has_the_documented_signature() -> None:
    """`get-vanilla` of the test suite of AWS."""
    scope = Scope("us-east-1", "service")
    got = signed(KEY, scope, "GET", "https://example.amazonaws.com/", {}, b"", NOW * 1_000_000_000)
    assert got["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
        " SignedHeaders=host;x-amz-date,"
        " Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"body": b"{ }"},
        {"url": "https://a.example/x/"},
        {"headers": {"Content-Type": "text/plain"}},
        {"now_ns": (NOW + 1) * 1_000_000_000},
        {"scope": Scope("us-east-2", "bedrock")},
    ],
)
def test_whatever_changes_changes_the_signature(changed: dict[str, object]) -> None:
    request: dict[str, object] = {
        "scope": Scope("us-east-1", "bedrock"),
        "url": "https://a.example/x",
        "headers": {"Content-Type": "application/json"},
        "body": b"{}",
        "now_ns": NOW * 1_000_000_000,
    }

    def signature(fields: dict[str, object]) -> str:
        made = signed(KEY, method="POST", **fields)  # type: ignore[arg-type]
        return made["Authorization"].rpartition("=")[2]

    assert signature(request) != signature(request | changed)


def test_an_access_key_shows_no_secret() -> None:
    assert "wJalr" not in repr(KEY) and "AKIDEXAMPLE" in repr(KEY)
