"""Laws of the token: created if there is none, kept if there is one, and always private."""

from pathlib import Path

import pytest

from cnn.cluster.token import keep_token_private
from cnn.errors import UserError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path / ".ray" / "auth_token"


def test_a_token_is_created_once_and_only_its_owner_can_read_it(file: Path) -> None:
    keep_token_private()
    token = file.read_text()
    assert len(token) == 64 and int(token, 16)
    keep_token_private()
    assert file.read_text() == token
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_token_that_others_can_read_is_kept_and_made_private(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("a" * 64)
    file.chmod(0o644)
    keep_token_private()
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("a" * 64, 0o600)


def test_no_token_file_is_created_if_the_environment_has_a_token(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    keep_token_private()
    assert not file.exists()


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null", "{}"])
def test_a_home_that_cannot_be_written_is_refused_with_the_variables_to_set(
    file: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    file.parent.touch()  # in the last one, `.ray` is a file
    monkeypatch.setenv("HOME", home.format(file.parent.parent))
    with pytest.raises(UserError, match=r"cannot be written .* set HOME .* or RAY_AUTH_TOKEN_PATH"):
        keep_token_private()


def test_a_folder_in_place_of_the_token_is_refused_and_keeps_its_mode(file: Path) -> None:
    file.mkdir(parents=True)
    before = file.stat().st_mode
    with pytest.raises(UserError, match=r"is no file.* remove it"):
        keep_token_private()
    assert file.stat().st_mode == before
