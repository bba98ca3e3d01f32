"""References in the settings, and that no secret of theirs is ever shown."""

import pytest

from compose.check import describe
from tests.given_settings import complaint, from_yaml
from tests.unit.settings.documents import DOCUMENT_001


def test_references_are_resolved_anywhere_and_may_have_a_default() -> None:
    text = "data_dir: ${HOME_DIR}/nexus\nhost: ${HOST:-localhost}\nbus: {url: ${BUS:-nats://b:1}}"
    config = from_yaml(text, {"HOME_DIR": "/srv"}).config
    assert (config.data_dir, config.host, config.bus.url) == (
        "/srv/nexus",
        "localhost",
        "nats://b:1",
    )


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("admin_token: hunter2", "ADMIN_TOKEN"),
        ("api_keys: [hunter2]", "GATEWAY_API_KEYS"),
        ("api_keys: ['${GOOD}', hunter2]", "GATEWAY_API_KEYS"),
        ("bus: {password: hunter2}", "NEXUS_NATS_PASSWORD"),
        ("providers: {azure-eu: {base_url: https://x, api_key: hunter2}}", "AZURE_EU_API_KEY"),
    ],
)
def test_a_secret_in_the_file_is_refused_without_being_shown(text: str, variable: str) -> None:
    message = complaint(text, {"GOOD": "good"})
    assert f"a secret does not belong in the file; write ${{{variable}}}" in message
    assert "hunter2" not in message


def test_a_wrong_secret_is_not_shown() -> None:
    message = complaint("providers: {mock: {api_key: [987654]}}", {})
    assert "987654" not in message


def test_secrets_by_reference_are_read() -> None:
    text = "api_keys: ['${ONE}', '${TWO}']\nadmin_token: ${THREE}"
    config = from_yaml(text, {"ONE": "1", "TWO": "2", "THREE": "3"}).config
    assert (config.api_keys, config.admin_token) == (("1", "2"), "3")


def test_the_description_has_every_value_with_its_origin_and_no_secret() -> None:
    env = {
        "OPENAI_API_KEY": "sk-secret-1",
        "ADMIN_TOKEN": "sk-secret-2",
        "GATEWAY_API_KEYS": "sk-secret-3,sk-secret-4",
        "NEXUS_NATS_URL": "nats://u:sk-secret-5@a:1,nats://b:2",
        "NEXUS_NATS_PASSWORD": "sk-secret-6",
        "HEADER": "sk-secret-7",
    }
    text = f"{DOCUMENT_001}\nproviders: {{mock: {{headers: {{X-Auth: ${{HEADER}}}}}}}}"
    config, origins, _ = from_yaml(text, env, port=9)
    described = describe(config, origins)
    assert "sk-secret" not in described
    lines = {line.partition(" = ")[0]: line.partition(" = ")[2] for line in described.splitlines()}
    assert lines.keys() >= {
        f"{section}.{name}"
        for section in ("queue", "limits", "bus", "budget", "router")
        for name in getattr(config, section).__struct_fields__
    }

    def line(path: str) -> list[str]:
        return lines[path].split("  (")

    assert [part.strip() for part in line("port")] == ["9", "command line)"]
    assert [part.strip() for part in line("models.gpt-4o.input_cost")] == [
        "0.0000025",
        "given.yaml)",
    ]
    assert line("providers.openai.api_key")[0].strip() == "set"
    assert line("providers.mock.api_key")[0].strip() == "unset"
    assert line("api_keys")[0].strip() == "set (2)"
    assert line("bus.url")[0].strip() == "nats://***@a:1,nats://b:2"
    assert line("providers.mock.headers")[0].strip() == "set (X-Auth)"
    assert line("queue.ack_wait")[1] == "default)"
