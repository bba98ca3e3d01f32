"""The command line, each command as a process of its own; and how it shows what it got."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from compose import show
from compose.banner import Facts, banner, curl
from compose.claims import AdminToken, CannotStart, admin_token, data_directory, listening
from compose.cli import nexus
from compose.client import Answer, LedgerEvent, address
from schemas.config import Config, ModelConfig, ProviderConfig

ROOT = Path(__file__).parents[2]
OURS = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")
COMMANDS = [
    "up", "ingress", "worker", "governor", "analytics", "check", "setup", "bus-permissions",
    "keys", "projects", "teams", "budget", "prices", "route", "ledger", "sql", "tail", "version",
]  # fmt: skip
GROUPS = ["keys", "projects", "teams", "budget", "prices", "ledger"]


def run(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """`nexus` with these arguments and, of our own variables, only those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "compose.cli", *arguments],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_help_explains_every_command_with_examples(flag: str) -> None:
    result = run(flag)
    assert result.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout
    assert "...\n" not in result.stdout.partition("Commands:")[2], "an explanation was cut off"
    assert "Examples:" in result.stdout
    assert "NEXUS_URL" in result.stdout


def test_every_command_has_help_of_its_own_and_none_is_hidden() -> None:
    assert list(nexus.commands) == COMMANDS
    groups = [one for one in nexus.commands.values() if isinstance(one, click.Group)]
    assert [group.name for group in groups] == GROUPS
    for command in (*nexus.commands.values(), *(c for g in groups for c in g.commands.values())):
        assert command.help
        assert not command.hidden
        if not isinstance(command, click.Group):
            options = [one for one in command.params if isinstance(one, click.Option)]
            assert all(option.help for option in options), command.name


def test_the_help_of_a_group_is_short_and_has_examples() -> None:
    for group in GROUPS:
        told = run(group, "--help").stdout
        assert "...\n" not in told.partition("Commands:")[2], "an explanation was cut off"
        assert f"  nexus {group} " in told.partition("Examples:")[2]


def test_help_loads_nothing_that_only_a_role_needs() -> None:
    program = (
        "import sys, compose.cli\n"
        "print(sorted({'fastapi', 'nats', 'httpx', 'aiohttp', 'yaml', 'faststream', 'msgspec'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


def test_version_names_the_product() -> None:
    assert run("version").stdout.startswith("nexus")


def test_a_wrong_setting_is_named_and_ends_with_code_2(tmp_path: Path) -> None:
    file = tmp_path / "nexus.yaml"
    file.write_text("port: many\n")
    for command in ("check", "up", "worker"):
        result = run(command, "--config", str(file), cwd=tmp_path)
        assert result.returncode == 2
        assert "port" in result.stderr
        assert "Traceback" not in result.stderr


def test_check_prints_values_with_their_origin_and_no_secret(tmp_path: Path) -> None:
    result = run("check", cwd=tmp_path, PORT="9191", ADMIN_TOKEN="very-secret")
    assert result.returncode == 0
    (port,) = [line for line in result.stdout.splitlines() if line.startswith("port = ")]
    assert port.split() == ["port", "=", "9191", "(environment", "PORT)"]
    assert "very-secret" not in result.stdout + result.stderr


def test_a_worker_for_an_unknown_pool_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    result = run("worker", "--pool", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "nowhere" in result.stderr
    assert "mock" in result.stderr


def test_the_users_of_an_own_bus_are_printed_without_any_password(tmp_path: Path) -> None:
    result = run("bus-permissions", cwd=tmp_path, NEXUS_NATS_PASSWORD="very-secret")
    assert result.returncode == 0
    for user in ("ingress", "worker", "governor", "analytics", "monitor"):
        assert f'user: "{user}", password: "PASSWORD_OF_{user.upper()}"' in result.stdout
    assert "very-secret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "arguments", [("sql", "select 1"), ("tail",), ("keys", "list"), ("budget", "list")]
)
def test_without_a_gateway_the_message_says_what_to_do(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    result = run(*arguments, cwd=tmp_path, NEXUS_URL=f"http://127.0.0.1:{port}")
    assert result.returncode == 1
    assert f"http://127.0.0.1:{port}" in result.stderr
    assert "nexus up" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_address_of_the_gateway_comes_from_the_environment(tmp_path: Path) -> None:
    env = {"NEXUS_URL": "https://gateway.example/", "NEXUS_TOKEN": "nx-1"}
    assert address(env) == ("https://gateway.example", "nx-1", "NEXUS_TOKEN")


def test_without_a_token_the_kept_admin_token_is_used_else_the_development_key(
    tmp_path: Path,
) -> None:
    env = {"NEXUS_DATA_DIR": str(tmp_path)}
    assert address(env)[:2] == ("http://127.0.0.1:8080", "dev-key")
    assert "no NEXUS_TOKEN" in address(env).origin
    made = admin_token("", tmp_path)
    assert address(env)[1:] == (made.value, str(tmp_path / "admin_token"))


def test_an_admin_token_is_made_once_and_kept_for_the_owner_only(tmp_path: Path) -> None:
    first = admin_token("", tmp_path)
    again = admin_token("", tmp_path)
    assert first.new
    assert first.value.startswith("nx-")
    assert again == AdminToken(first.value, tmp_path / "admin_token", new=False)
    assert (tmp_path / "admin_token").stat().st_mode & 0o777 == 0o600


def test_a_configured_admin_token_is_not_written_anywhere(tmp_path: Path) -> None:
    assert admin_token("configured", tmp_path) == AdminToken("configured")
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_has_one_owner_who_is_named(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom compose.claims import *\n"
        "try:\n    with data_directory(Path(sys.argv[1])): pass\n"
        "except CannotStart as error: print(error)"
    )
    with data_directory(tmp_path / "data"):
        result = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "data")],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert str(os.getpid()) in result.stdout
    with data_directory(tmp_path / "data"):
        pass


def test_a_data_directory_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="data directory"), data_directory(tmp_path / "file/x"):
        pass


def test_a_port_in_use_and_an_unknown_host_are_refused_with_the_reason() -> None:
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CannotStart, match=f"port {port} on 127.0.0.1 is in use.*--port"):
            listening("127.0.0.1", port).__enter__()
    with pytest.raises(CannotStart, match=r"cannot listen on no\.such\.host\.invalid"):
        listening("no.such.host.invalid", 0).__enter__()


def facts(config: Config, token: AdminToken, **changes: Any) -> Facts:
    told: dict[str, Any] = {
        "config": config,
        "port": 8080,
        "bus": "nats://monitor@127.0.0.1:4222",
        "bus_password": Path("/data/nats/monitor"),
        "data_dir": Path("/data"),
        "token": token,
        "durability": "normal",
        "seconds": 1.0,
    }
    return Facts(**{**told, **changes})


NEW_TOKEN = AdminToken("nx-admin-1", Path("/data/admin_token"), new=True)
MOCK = {"mock": ProviderConfig(dialect="mock")}


def test_without_configuration_the_banner_has_the_key_the_urls_and_the_new_token() -> None:
    text = banner(facts(Config(api_keys=("dev-key",), providers=MOCK), NEW_TOKEN))
    for expected in (
        "http://127.0.0.1:8080/v1",
        "http://127.0.0.1:8080/metrics",
        "http://127.0.0.1:8080/events",
        "http://127.0.0.1:8080/health",
        "dev-key",
        "nx-admin-1",
        "power cut",
        'curl http://127.0.0.1:8080/v1/chat/completions -H "Authorization: Bearer dev-key"',
        '"model": "mock"',
    ):
        assert expected in text


def test_a_configured_key_or_token_is_never_printed() -> None:
    config = Config(api_keys=("nx-secret",), admin_token="nx-admin-secret", providers=MOCK)
    text = banner(facts(config, AdminToken("nx-admin-secret")))
    assert "secret" not in text
    assert "$NEXUS_KEY" in text


def test_a_kept_token_is_not_printed_again_and_the_line_to_paste_reads_it() -> None:
    kept = AdminToken("nx-admin-1", Path("/my data/admin_token"))
    text = banner(facts(Config(api_keys=("nx-secret",), providers=MOCK), kept))
    assert "nx-admin-1" not in text
    assert "$(cat '/my data/admin_token')" in text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("gateway.example", "http://gateway.example:8080"),
    ],
)
def test_the_url_can_be_opened_on_this_machine(host: str, url: str) -> None:
    assert facts(Config(host=host), NEW_TOKEN).url == url


def test_without_a_mock_the_line_to_paste_asks_the_first_configured_model() -> None:
    config = Config(
        providers={"openai": ProviderConfig()},
        models={"gpt-*": ModelConfig(provider="openai"), "it's": ModelConfig(provider="openai")},
    )
    assert '"model": "it' in curl(facts(config, NEW_TOKEN))


ANSWER = Answer(
    columns=["model", "calls", "cost"],
    types=["String", "UInt64", "Nullable(Float64)"],
    rows=[["gpt-4o", 12, 0.5], ["m\x1b[31m,x", 3, None]],
    as_of_seq=42,
)


def test_a_table_is_aligned_and_cannot_steer_the_terminal() -> None:
    assert show.rows(ANSWER, "table").splitlines() == [
        "model     calls  cost",
        "--------  -----  ----",
        "gpt-4o       12   0.5",
        "m�[31m,x      3  NULL",
        "(2 rows, ledger sequence 42)",
    ]


def test_csv_and_json_keep_the_values_as_they_are() -> None:
    assert show.rows(ANSWER, "csv") == 'model,calls,cost\ngpt-4o,12,0.5\n"m\x1b[31m,x",3,\n'
    assert msgspec.json.decode(show.rows(ANSWER, "json"), type=Answer) == ANSWER


HEADER = ("id", "name", "hint", "models", "user")
CELLS = [
    ["key_0001", "the shop of the north", "nx-4444…4444", "gpt-4o*, claude-*", ""],
    ["key_0002", "\x1b]0;owned by me\x07", "nx-5555…5555", "*", ""],
]


def test_a_table_fits_the_terminal_without_cutting_what_is_copied_from_it() -> None:
    assert show.table(HEADER, CELLS, 40, spare=("user", "hint")).splitlines() == [
        "id        name            models",
        "--------  --------------  --------------",
        "key_0001  the shop of t…  gpt-4o*, clau…",
        "key_0002  �]0;owned by …  *",
    ]
    narrow = show.table(HEADER, CELLS, 9, spare=("hint",))
    assert max(map(len, narrow.splitlines())) == len("key_0001  the shop o…  gpt-4o*, c…")


def test_a_table_is_whole_where_there_is_room_or_no_terminal() -> None:
    for room in (None, 64):
        told = show.table(HEADER, CELLS, room, spare=("hint",)).splitlines()
        assert told[2] == "key_0001  the shop of the north  nx-4444…4444  gpt-4o*, claude-*"
        assert "user" not in told[0], "nothing stands in this column"


def test_lines_of_a_record_leave_out_what_is_not_set_and_cannot_steer_the_terminal() -> None:
    told = show.record({"id": "key_0001", "name": "", "models": "a\n\x9b31m"})
    assert told == "id      key_0001\nmodels  a��31m\n"


def test_the_line_to_paste_survives_a_shell(tmp_path: Path) -> None:
    line = show.curl("http://127.0.0.1:1/it's", "'X: nx-1'", "it's $HOME `id`")
    words = subprocess.run(
        ["sh", "-c", line.replace("curl ", "printf '%s\\n' ", 1)], capture_output=True, text=True
    )
    url, *_, body = words.stdout.splitlines()
    assert url == "http://127.0.0.1:1/it's/v1/chat/completions"
    assert msgspec.json.decode(body)["model"] == "it's $HOME `id`"
    assert show.curl("http://h", "'X: nx-1'", None) == "curl http://h/v1/models -H 'X: nx-1'"


def test_an_event_is_one_line_with_time_type_model_and_what_came_of_it() -> None:
    done = {
        "event_type": "model.request.complete",
        "time": "2026-11-20T10:11:12.345678Z",
        "model": "gpt-4o\n",
        "provider": "openai",
        "latency_ms": 812.4,
        "cost_nano": 17_100_000,
    }
    line = show.event(LedgerEvent(b"", done))
    assert line.split() == [
        "10:11:12.345", "model.request.complete", "gpt-4o�", "openai", "812", "ms", "$0.0171",
    ]  # fmt: skip
    access = {"event_type": "access.key.created", "time": done["time"], "by": "admin"}
    abouts = [
        ({"record": {"id": "key_1", "name": "x"}}, "key_1"),
        ({"record": {"scope": "user", "id": "ana", "period": "day"}}, "user:ana:day"),
        ({"record": {"scope": "global", "period": "day"}}, "global:day"),
        ({"project": "shop"}, "shop"),
        ({"team": "retail"}, "retail"),
        ({"name": "team:retail:day"}, "team:retail:day"),
    ]
    for fields, about in abouts:
        line = show.event(LedgerEvent(b"", {**access, **fields}))
        assert line.split() == ["10:11:12.345", "access.key.created", about, "by", "admin"]
    failed = {**done, "cost_nano": None, "error": {"status": 502, "message": "no route"}}
    assert show.event(LedgerEvent(b"", failed)).endswith("812 ms  502 no route")
