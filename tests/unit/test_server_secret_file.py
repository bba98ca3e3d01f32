"""The server secret of `nexus up`: made once, kept for the owner only, and never replaced."""

from pathlib import Path

import pytest

from compose.claims import CannotStart, server_secret
from ledger.secret import ServerSecret


def test_a_secret_is_made_once_and_kept_for_the_owner_only(tmp_path: Path) -> None:
    (made,) = server_secret((), tmp_path)
    assert server_secret((), tmp_path) == (made,)
    assert ServerSecret((made,)).available
    assert (tmp_path / "secret").read_text() == f"{made}\n"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def test_every_data_directory_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert server_secret((), tmp_path) != server_secret((), tmp_path / "other")


def test_a_configured_secret_is_not_written_anywhere(tmp_path: Path) -> None:
    assert server_secret(("newer", "older"), tmp_path) == ("newer", "older")
    assert list(tmp_path.iterdir()) == []


def test_a_kept_secret_is_still_understood_when_another_is_configured(tmp_path: Path) -> None:
    (kept,) = server_secret((), tmp_path)
    assert server_secret(("newer", "older"), tmp_path) == ("newer", "older", kept)
    assert server_secret((kept,), tmp_path) == (kept,)


def test_what_a_killed_start_left_behind_is_not_taken_for_a_secret(tmp_path: Path) -> None:
    (tmp_path / "secret.new").write_text("hal")
    (made,) = server_secret((), tmp_path)
    assert made != "hal"
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_secret_that_was_lost_is_never_replaced_by_another(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(CannotStart, match="secret"):
        server_secret((), tmp_path)
    assert (tmp_path / "secret").read_bytes() == content


def test_a_secret_that_cannot_be_read_is_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(CannotStart, match="the server secret cannot be used"):
        server_secret((), tmp_path)
