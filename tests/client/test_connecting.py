"""Connecting where nobody is, where nobody may, and where the backlog is full."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from harness import (
    Echo,
    full_backlog,
)

from ipcpoll import (
    NotPolled,
    NotRunning,
    StaleSocket,
    UntrustedPeer,
    send,
)
from ipcpoll._client import reasons

# ---------------------------------------------------------------------------------------------
# Time limits


def test_hazard_18_full_backlog(directory):
    path = f"{directory}/full"
    with (
        full_backlog(path),
        pytest.raises(NotPolled, match="has not taken in this connection within"),
    ):
        send(Echo(1), path, timeout=0.05)


# ---------------------------------------------------------------------------------------------
# A server that is not there, or goes


def test_nobody_there(directory):
    path = f"{directory}/nobody"
    with pytest.raises(NotRunning) as caught:
        send(Echo(1), path)
    assert type(caught.value) is NotRunning
    assert str(caught.value) == f"the program does not run: there is no socket at {path}"


def test_path_that_is_too_long(directory):
    with pytest.raises(OSError, match="a socket's path may have 107 bytes, this has"):
        send(Echo(1), f"{directory}/{'x' * 120}")


def test_path_through_a_file(directory):
    with open(f"{directory}/file", "w"):
        pass
    with pytest.raises(NotRunning):
        send(Echo(1), f"{directory}/file/socket")


def test_stale_socket(directory):
    path = f"{directory}/stale"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    with pytest.raises(StaleSocket) as caught:
        send(Echo(1), path)
    assert str(caught.value) == (
        "the program (pid unknown) serves no more and has left its socket behind: "
        f"nobody listens at {path}"
    )


def test_what_refuses_and_is_no_socket(directory):
    path = f"{directory}/file"
    Path(path).write_text("precious")
    with pytest.raises(NotRunning) as caught:
        send(Echo(1), path)
    assert type(caught.value) is NotRunning
    assert str(caught.value) == f"the program does not run: this is no socket: {path}"
    gone = f"{directory}/removed-just-now"
    assert str(reasons.nobody_listens(gone)) == (
        f"the program does not run: there is no socket at {gone}"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to any socket")
def test_socket_that_may_not_be_connected_to(directory):
    path = f"{directory}/closed"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        os.chmod(path, 0)
        with pytest.raises(UntrustedPeer):
            send(Echo(1), path)


def test_permission_refused_is_said(directory, monkeypatch):
    """As root nothing is refused, so the system call is replaced."""
    import errno

    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EACCES)
    with pytest.raises(UntrustedPeer, match="may not connect"):
        send(Echo(1), f"{directory}/s")
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EIO)
    with pytest.raises(OSError, match="the program can't be reached"):
        send(Echo(1), f"{directory}/s")
