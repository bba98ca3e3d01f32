"""`nexus prices`: what is shown, what an update would change, and what of it is refused."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from compose import generate_catalog, price_source
from compose.cli import nexus
from schemas.prices import PriceBook

GPT_4O = "openai/gpt-4o"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("NEXUS_", "CONFIG_PATH"))]:
        monkeypatch.delenv(name)


def prices(*arguments: str) -> Result:
    return CliRunner().invoke(nexus, ["prices", *arguments], prog_name="nexus")


def shown(*arguments: str) -> Any:
    result = prices(*arguments, "--json")
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def own_file(path: Path, **changes: Any) -> Path:
    """The built-in prices as a file, in which some of gpt-4o's rates are others."""
    built_in = Path(price_source.__file__).parents[1] / "schemas" / "data" / "prices.json"
    file = json.loads(built_in.read_bytes())
    for model in file["providers"]["openai"]["models"]:
        if model["id"] == "gpt-4o":
            for version in model["prices"]:
                version["rates"] |= changes
                version["digest"] = "changed1"
    file["version"] = "0.9.9"
    path.write_text(json.dumps(file))
    return path


def published(usd: float = 2.5) -> list[dict[str, Any]]:
    """Prices as genai-prices publishes them: its `data.json`."""
    names = {"or": [{"equals": "gpt-4o"}, {"starts_with": "gpt-4o-2"}]}
    model = {"id": "gpt-4o", "match": names, "prices": {"input_mtok": usd, "output_mtok": 10}}
    flex = {"when": {"service_tier": "flex"}, "prices": {"input_mtok": 1.1}}
    return [
        {
            "id": "openai",
            "name": "OpenAI",
            "api_pattern": "https://api\\.openai\\.com",
            "models": [{**model, "price_variants": [flex]}],
        }
    ]


# --- show


def test_a_price_is_shown_by_class_and_tier_in_usd_per_million() -> None:
    (told,) = shown("show", "openai/gpt-5.4")
    assert told["provider"] == "openai" and told["since"] == "2026-10-14"
    assert told["price_id"].startswith(PriceBook.load().edition)
    rates = told["usd_per_million"]
    assert rates["input"] == "2.5" and rates["cached_input"] == "0.25"
    assert rates["output above 272000"] == "22.5"
    assert rates["flex cached_input"] == "0.13" and rates["priority output"] == "30"
    text = prices("show", "openai/gpt-5.4").stdout
    assert "since       2026-10-14" in text and "flex cached input above 272000" in text


def test_a_name_is_shown_at_every_provider_that_lists_it() -> None:
    places = {one["provider"] for one in shown("show", "gpt-5.4")}
    assert {"openai", "github-copilot"} <= places


def test_a_name_with_a_slash_that_is_no_provider_is_found() -> None:
    assert {"groq"} <= {one["provider"] for one in shown("show", "groq/openai/gpt-oss-120b")}
    assert "together" in {
        one["provider"] for one in shown("show", "meta-llama/Llama-3.3-70B-Instruct-Turbo")
    }


def test_a_fee_and_hours_are_shown() -> None:
    (sonar,) = shown("show", "perplexity/sonar")
    assert sonar["usd_per_request"] == "0.012" and "per_request" not in sonar["usd_per_million"]
    assert "UTC" in prices("show", "deepseek/deepseek-chat").stdout


def test_a_configured_model_is_shown_as_it_is_charged() -> None:
    Path("nexus.yaml").write_text(
        "pricing: {markup_percent: 10}\n"
        "models: {mine: {provider: openai, engine: gpt-4o, input_cost: 0.000002}}\n"
    )
    (told,) = shown("show", "mine")
    assert told["usd_per_million"]["input"] == "2.2"
    assert told["usd_per_million"]["output"] == "11"
    assert told["price_id"].startswith("config/mine/") and told["price_id"].endswith("+10%")


def test_without_a_model_the_providers_are_shown() -> None:
    assert shown("show")["models_by_provider"]["openai"] > 50
    assert f"{PriceBook.load().edition} of " in prices("show").stdout


def test_an_unknown_model_is_said_to_be_unknown() -> None:
    result = prices("show", "no-such-model\x1b[31m")
    assert result.exit_code == 1 and "no price of" in result.stderr
    assert "\x1b" not in result.stderr


# --- diff


def test_nothing_differs_from_the_installed_package() -> None:
    result = prices("diff")
    assert result.exit_code == 0, result.output
    assert "0 models added, 0 removed, 0 with other prices" in result.stdout


def test_a_difference_is_told_with_its_percentage_and_ends_with_1(tmp_path: Path) -> None:
    file = own_file(tmp_path / "new.json", input=3_000_000_000)
    result = prices("diff", "--from", str(file))
    assert result.exit_code == 1
    assert f"! {GPT_4O}  input  2.5 -> 3  (+20.0%)" in result.stdout.splitlines()
    told = shown("diff", "--from", str(file))
    assert told["changed"] == [
        {
            "provider": "openai",
            "model": "gpt-4o",
            "rate": "input",
            "before": "2.5",
            "after": "3",
            "percent": 20.0,
        }
    ]
    assert not Path(".nexus").exists()


def test_models_that_come_and_go_are_told(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps(published()))
    told = shown("diff", "--from", str(file))
    assert "anthropic/claude-2" in told["removed"] and told["added"] == []
    lines = prices("diff", "--from", str(file)).stdout.splitlines()
    assert any(line.startswith("  ... and ") for line in lines)
    assert not any(
        line.startswith("  ... and ")
        for line in prices("diff", "--all", "--from", str(file)).stdout.splitlines()
    )


def test_a_source_that_cannot_be_read_ends_with_2() -> None:
    result = prices("diff", "--from", "nowhere.json")
    assert result.exit_code == 2 and "nowhere.json: No such file" in result.stderr


# --- update


def test_an_update_is_used_from_then_on(tmp_path: Path) -> None:
    file = own_file(tmp_path / "new.json", input=3_000_000_000)
    result = prices("update", "--from", str(file))
    assert result.exit_code == 0, result.output
    written = Path(".nexus/prices.json")
    assert os.listdir(".nexus") == ["prices.json"]
    assert PriceBook.checked(written.read_bytes()).edition == "genai-prices-0.9.9"
    (told,) = shown("show", GPT_4O)
    assert told["usd_per_million"]["input"] == "3"
    assert told["price_id"] == "genai-prices-0.9.9/openai/gpt-4o/changed1"
    checked = CliRunner().invoke(nexus, ["check"])
    assert "prices: genai-prices-0.9.9 of " in checked.stdout
    assert ".nexus/prices.json" in checked.stdout
    again = prices("update", "--from", str(file))
    assert again.exit_code == 0 and "nothing to do" in again.stdout


def test_the_place_of_the_file_can_be_chosen(tmp_path: Path) -> None:
    Path("nexus.yaml").write_text("pricing: {file: shared/book.json}\n")
    file = own_file(tmp_path / "new.json", input=3_000_000_000)
    assert prices("update", "--from", str(file)).exit_code == 0
    assert os.listdir("shared") == ["book.json"] and not Path(".nexus").exists()
    assert shown("show", GPT_4O)[0]["usd_per_million"]["input"] == "3"


@pytest.mark.parametrize("usd", ["250", "0.025", "0"])
def test_a_price_that_jumps_a_hundredfold_is_refused_unless_forced(
    usd: str, tmp_path: Path
) -> None:
    rate = int(Decimal(usd) * 10**9) + (usd == "250") - (usd == "0.025")
    file = own_file(tmp_path / "new.json", input=rate)
    result = prices("update", "--from", str(file))
    assert result.exit_code == 1
    assert f"{GPT_4O}: input jumps from 2500000000" in result.stderr
    assert not Path(".nexus").exists()
    assert prices("update", "--force", "--from", str(file)).exit_code == 0
    assert Path(".nexus/prices.json").exists()


def test_a_file_without_most_models_is_refused_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps(published()))
    result = prices("update", "--from", str(file))
    assert result.exit_code == 1 and "models are left" in result.stderr
    assert prices("update", "--force", "--from", str(file)).exit_code == 0
    (told,) = shown("show", GPT_4O)
    assert told["usd_per_million"]["flex input"] == "1.1"
    assert told["price_id"].startswith("genai-prices-")


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no json",
        b"[1]",
        b"[[]]",
        b"{}",
        b'{"source": 1}',
        b"\xff",
        b"[" * 100_000,
        json.dumps(published(-1)).encode(),
        json.dumps([{**published()[0], "models": [{"id": "x"}]}]).encode(),
    ],
)
def test_a_broken_file_changes_nothing_even_by_force(broken: bytes, tmp_path: Path) -> None:
    good = own_file(tmp_path / "good.json", input=3_000_000_000)
    assert prices("update", "--from", str(good)).exit_code == 0
    before = Path(".nexus/prices.json").read_bytes()
    file = tmp_path / "broken.json"
    file.write_bytes(broken)
    result = prices("update", "--force", "--from", str(file))
    assert result.exit_code == 1 and str(file) in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    assert Path(".nexus/prices.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".nexus").write_text("no folder")
    file = own_file(tmp_path / "new.json", input=3_000_000_000)
    result = prices("update", "--from", str(file))
    assert result.exit_code == 1 and ".nexus/prices.json: cannot be written" in result.stderr


def test_without_the_package_the_remedy_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(price_source, "find_spec", lambda name: None)
    result = prices("update")
    assert result.exit_code == 1 and "pip install genai-prices" in result.stderr
    file = own_file(tmp_path / "new.json", input=3_000_000_000)
    assert prices("update", "--from", str(file)).exit_code == 0


def test_a_package_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that is older or newer than what is understood here."""
    monkeypatch.setattr(generate_catalog, "providers", [object()])
    result = prices("update")
    assert result.exit_code == 1 and "another version of that package" in result.stderr
    assert not Path(".nexus").exists()


# --- addresses


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/data.json":
            self._answer(200, json.dumps(published()).encode())
        elif self.path == "/moved":
            self._answer(302, b"", "/data.json")
        elif self.path == "/round":
            self._answer(302, b"", "/round")
        elif self.path == "/away":
            self._answer(302, b"", "http://prices.example/data.json")
        elif self.path == "/large":
            self._answer(200, b" " * 3_000_000)
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/data.json", "/moved"])
def test_prices_are_fetched_from_an_address(path: str, site: str) -> None:
    assert shown("diff", "--from", site + path)["added"] == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nowhere", "answered with status 404"),
        ("/round", "redirected more than 3 times"),
        ("/away", "http://prices.example/data.json: only https is trusted"),
        ("/large", "larger than"),
    ],
)
def test_an_address_that_is_not_to_be_trusted_is_refused(
    path: str, reason: str, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_source, "_LARGEST", 2_000_000)
    result = prices("update", "--from", site + path)
    assert result.exit_code == 1 and reason in result.stderr
    assert not Path(".nexus").exists()


@pytest.mark.parametrize(
    "url", ["http://prices.example/data.json", "ftp://127.0.0.1/x", "file:///etc/passwd", "://"]
)
def test_only_https_is_trusted_beyond_this_machine(url: str) -> None:
    result = prices("update", "--from", url)
    assert result.exit_code == 1 and "only https is trusted" in result.stderr


def test_an_address_where_nobody_answers_is_named(site: str) -> None:
    result = prices("update", "--from", "http://127.0.0.1:1/data.json")
    assert result.exit_code == 1 and "http://127.0.0.1:1/data.json: " in result.stderr
