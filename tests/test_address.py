"""Where a name leads: the user's private runtime directory, checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipcpoll import UnsafeAddress, runtime_path
from ipcpoll.address import is_name, make_runtime_directory, socket_path


@pytest.fixture
def private(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_private_runtime_directory_is_taken(private):
    assert runtime_path("calc") == private / "ipcpoll" / "calc.sock"


@pytest.mark.parametrize("name", ["a", "A.b-c_d9", "x" * 64, "-dash", "_"])
def test_good_names(private, name):
    assert runtime_path(name).name == f"{name}.sock"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a b", "ä", "x" * 65, "a\n", "a\0"])
def test_bad_names(private, name):
    with pytest.raises(ValueError, match="is no name for a server"):
        runtime_path(name)


@pytest.mark.parametrize("value", ["", "relative", "/nowhere/at/all"])
def test_useless_variable_is_passed_over(monkeypatch, value):
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert not str(runtime_path("calc")).startswith(value or "relative")


def test_directory_that_others_can_enter_is_passed_over(private):
    private.chmod(0o750)
    assert runtime_path("calc").parent.parent != private


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_directory_of_another_user_is_passed_over(private):
    os.chown(private, 12345, 12345)
    assert runtime_path("calc").parent.parent != private


def test_link_to_a_directory_is_passed_over(private, monkeypatch):
    (private / "link").symlink_to(private)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private / "link"))
    assert runtime_path("calc").parent.parent != private / "link"


def test_fallback_when_there_is_no_runtime_directory(monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("ipcpoll.address._is_private", lambda directory: False)
    assert runtime_path("calc") == Path(f"/tmp/ipcpoll-{os.geteuid()}/calc.sock")


def test_names_and_paths(private):
    assert is_name("calc")
    assert not is_name("./calc")
    assert not is_name(Path("calc"))
    assert socket_path("calc") == str(private / "ipcpoll/calc.sock")
    assert socket_path("/a/../b") == "/b"
    assert socket_path(Path("calc")) == os.path.abspath("calc")


def test_directory_is_made_for_this_user_alone(private):
    make_runtime_directory(str(private / "ipcpoll" / "calc.sock"))
    assert (private / "ipcpoll").stat().st_mode & 0o777 == 0o700
    make_runtime_directory(str(private / "ipcpoll" / "calc.sock"))


def test_directory_that_others_can_enter_is_refused(private):
    (private / "ipcpoll").mkdir(0o755)
    (private / "ipcpoll").chmod(0o755)
    with pytest.raises(UnsafeAddress, match=r"must be a directory of this user .*mode 0700"):
        make_runtime_directory(str(private / "ipcpoll" / "calc.sock"))
