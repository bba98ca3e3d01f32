"""Whatever a client sends becomes a request for Bedrock, or a 400 that can be shown."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.ids import Clock
from tests.contract.provider_contract import ask_of
from workers.failures import Failures
from workers.http import Http
from workers.providers.base import AttemptFailed
from workers.providers.bedrock.request import converse_request

FAILURES = Failures("acme", (), Clock())
WORDS = [
    "user",
    "tool",
    "text",
    "image_url",
    "file",
    "none",
    "required",
    "json_schema",
    "json_object",
    "low",
    "1h",
    "data:,x",
]
KEYS = [
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "type",
    "text",
    "image_url",
    "url",
    "file",
    "file_data",
    "function",
    "name",
    "arguments",
    "parameters",
    "thinking",
    "signature",
    "data",
    "ttl",
    "format",
    "json_schema",
    "schema",
    "description",
    "id",
]

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=4), st.sampled_from(WORDS)
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "input_audio"])},
    optional={"text": leaves, "image_url": values, "file": values, "cache_control": values},
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
    optional={
        "content": st.one_of(st.lists(parts, max_size=2), values),
        "tool_calls": values,
        "thinking_blocks": values,
        "tool_call_id": leaves,
    },
)
PARAMETERS = (
    *("tools", "tool_choice", "response_format", "max_tokens", "stop", "thinking", "top_k"),
    *("reasoning_effort", "service_tier", "outputConfig", "drop_params"),
)
bodies = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=2)}, optional=dict.fromkeys(PARAMETERS, values)
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=bodies,
    engine=st.sampled_from(["anthropic.claude-sonnet-4-v1", "amazon.nova-lite", "openai.gpt-oss"]),
    drop=st.booleans(),
)
async def test_any_request_is_passed_on_or_refused(
    http: Http, body: dict[str, Any], engine: str, drop: bool
) -> None:
    ask = ask_of()._replace(body=json.dumps(body).encode())
    try:
        sent = await converse_request(ask, engine, http, FAILURES, drop=drop, private=False)
    except AttemptFailed as failure:
        assert failure.info.status == 400 and failure.info.type == "invalid_request_error"
        assert failure.info.message.encode() and not failure.reached
    else:
        assert "messages" in json.loads(sent)
