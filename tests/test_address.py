"""Where a name leads: the user's private runtime directory, checked."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from ipcpoll import address, runtime_path
from ipcpoll.address import is_name, socket_path


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(address, "_passed_over", set())


@pytest.fixture
def private(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_private_runtime_directory_is_taken(private, caplog):
    assert runtime_path("calc") == private / "ipcpoll" / "calc.sock"
    assert not caplog.records


@pytest.mark.parametrize("name", ["a", "A.b-c_d9", "x" * 64, "-dash", "_"])
def test_good_names(private, name):
    assert runtime_path(name).name == f"{name}.sock"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a b", "ä", "x" * 65, "a\n", "a\0"])
def test_bad_names(private, name):
    with pytest.raises(ValueError, match="is no name for a server"):
        runtime_path(name)


@pytest.mark.parametrize("value", ["relative", "/nowhere/at/all"])
def test_useless_variable_is_passed_over(monkeypatch, value):
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert not str(runtime_path("calc")).startswith(value)


@pytest.mark.parametrize("value", ["", None])
def test_variable_that_is_not_set_is_no_fault(monkeypatch, caplog, value):
    if value is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert runtime_path("calc").name == "calc.sock"
    assert not caplog.records


def test_directory_that_others_can_enter_is_passed_over(private):
    private.chmod(0o750)
    assert runtime_path("calc").parent.parent != private


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_directory_of_another_user_is_passed_over(private, caplog):
    """As after `sudo -E`."""
    os.chown(private, 12345, 12345)
    assert runtime_path("calc").parent.parent != private
    assert caplog.messages == [
        f"XDG_RUNTIME_DIR is passed over: {private} belongs to user 12345",
    ]


def test_link_to_a_directory_is_passed_over(private, monkeypatch):
    (private / "link").symlink_to(private)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private / "link"))
    assert runtime_path("calc").parent.parent != private / "link"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("relative/path", "relative/path is no absolute path"),
        ("/nowhere", "/nowhere can't be looked at (No such file or directory)"),
        ("/dev/null", "/dev/null is no directory"),
        ("/", "/ can be entered by others (its mode is 0755, it should be 0700)"),
    ],
)
def test_what_is_passed_over_is_said_once(monkeypatch, caplog, value, words):
    if value == "/" and os.geteuid() != 0:
        words = "/ belongs to user 0"
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    first = runtime_path("calc")
    assert runtime_path("calc") == first
    [record] = caplog.records
    assert (record.name, record.levelno) == ("ipcpoll", logging.WARNING)
    assert record.getMessage() == f"XDG_RUNTIME_DIR is passed over: {words}"


def test_directory_of_the_login_is_taken_when_the_variable_is_missing(monkeypatch, tmp_path):
    """So that cron, sudo and ssh agree with the desktop."""
    asked = []

    def only_the_usual_one(directory):
        asked.append(directory)

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(address, "_fault", only_the_usual_one)
    assert runtime_path("calc") == Path(f"/run/user/{os.geteuid()}/ipcpoll/calc.sock")
    assert asked == [f"/run/user/{os.geteuid()}"]


def test_fallback_when_there_is_no_runtime_directory(monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(address, "_fault", lambda directory: "is not there")
    assert runtime_path("calc") == Path(f"/tmp/ipcpoll-{os.geteuid()}/calc.sock")


def test_names_and_paths(private):
    assert is_name("calc")
    assert not is_name("./calc")
    assert not is_name(Path("calc"))
    assert socket_path("calc") == str(private / "ipcpoll/calc.sock")
    assert socket_path("/a/../b") == "/b"
    assert socket_path(Path("calc")) == os.path.abspath("calc")
