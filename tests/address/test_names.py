"""Where a name leads: the user's private runtime directory, checked."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from harness import COMMANDS, Echo, Host

from ipcpoll import (
    AlreadyRunning,
    Client,
    NotPolled,
    NotRunning,
    Server,
    UnsafeAddress,
    UsageError,
    runtime_path,
    send,
)
from ipcpoll._address import names as address
from ipcpoll._address.names import is_name, socket_path
from ipcpoll._attach import oneself


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


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a b", "ä", "x" * 65, "a\n", "a\0", "a.sock"]
)
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


# ---------------------------------------------------------------------------------------------
# What is no address: what happened, and what to write


@pytest.mark.parametrize("end", [Server, Client], ids=["server", "client"])
@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("calc.sock", ValueError, "write 'calc'; a path needs a slash: './calc.sock'"),
        ("~/calc", ValueError, r"write os.path.expanduser\('~/calc'\), or './~/calc' for a"),
        (Path("~/calc"), ValueError, "a ~ is the shell's and not replaced here"),
        ("~alice/calc", ValueError, "a ~ is the shell's"),
        ("/tmp/a\0b", ValueError, "a path has no NUL: '/tmp/a.x00b'"),
        ("", ValueError, "'' is no name for a server"),
        (5, TypeError, "^an address is a str or a path, not 5$"),
        (None, TypeError, "^an address is a str or a path, not None$"),
        (Echo(1), TypeError, "^an address is a str or a path, not a value of type `Echo`$"),
        (b"/tmp/calc", TypeError, r"os.fsdecode\(\) makes one: b'/tmp/calc'"),
    ],
)
def test_what_is_no_address(end, address, error, words):
    """Told at once, by both ends, and nothing is made."""
    arguments = [COMMANDS] if end is Server else []
    with pytest.raises(error, match=words):
        end(address, *arguments)


def test_file_whose_name_begins_with_a_tilde(monkeypatch, directory):
    """In no shell does this one stand for a home."""
    monkeypatch.chdir(directory)
    assert socket_path("./~/calc") == f"{os.getcwd()}/~/calc"
    assert socket_path(Path("~calc")) == f"{os.getcwd()}/~calc"


def test_directory_that_is_not_there(directory):
    """The client says so as well; a name's directory is made by the server."""
    with pytest.raises(NotRunning) as caught:
        send(Echo(1), f"{directory}/nowhere/s")
    assert str(caught.value) == (
        f"the program does not run: there is no socket at {directory}/nowhere/s, and no directory "
        f"{directory}/nowhere: is the path right?"
    )


def test_name_whose_directory_is_not_there(private):
    with pytest.raises(NotRunning) as caught:
        send(Echo(1), "calc")
    assert "is the path right?" not in str(caught.value)


def test_path_that_is_no_utf8(directory, monkeypatch):
    """It works, and whatever is said of it can be printed."""
    path = os.fsdecode(os.fsencode(directory) + b"/\xff\n.sock")
    said = f"{directory}/\\xff\\n.sock"
    with pytest.raises(NotRunning) as nobody:
        send(Echo(1), path)
    with Server(path, COMMANDS) as server:
        assert server.address == path
        assert said in repr(server)
        with pytest.raises(AlreadyRunning) as twice:
            Server(path, COMMANDS)
        with Client(path, timeout=0.01) as client:
            assert said in repr(client)
            with pytest.raises(NotPolled) as silent:
                client.call(Echo(1))
            future = client.submit(Echo(2))
            server.poll(Host())
            assert future.result() == 2
            monkeypatch.setattr(oneself, "is_only_thread", lambda: True)
            with pytest.raises(UsageError) as refused:
                client.call(Echo(3), timeout=None)
            future = client.submit(Echo(4))
        server.close()
        server._listener.close(unlink=False)
    for caught in (nobody, twice, silent, refused):
        assert said in str(caught.value)
        str(caught.value).encode()
    directory_of = os.fsdecode(os.fsencode(directory) + b"/\xfe")
    os.mkdir(directory_of)
    os.chmod(directory_of, 0o777)
    with pytest.raises(UnsafeAddress) as unsafe:
        Server(f"{directory_of}/s", COMMANDS)
    assert f"{directory}/\\xfe" in str(unsafe.value)
    str(unsafe.value).encode()
