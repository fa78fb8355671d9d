"""examples/twisted_chat.py as its users run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from harness import PATIENCE, ROOT
from loops import need

pytestmark = pytest.mark.once

CHAT = str(ROOT / "examples" / "twisted_chat.py")


class Chat:
    """A chat that runs, its guests, and what its administrator says."""

    def __init__(self, directory: str) -> None:
        self.address = f"{directory}/door"
        self.process = subprocess.Popen(
            [*self.command("serve")],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words[:3] == ["chat", "at", "port"], words
        assert words[-1] == self.address
        self.port = int(words[3].strip(","))
        self.guests: list[socket.socket] = []

    @staticmethod
    def environment() -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, CHAT, *words, "--address", self.address]

    def admin(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            self.command("admin", *words),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def enter(self) -> socket.socket:
        guest = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self.guests.append(guest)
        assert line(guest) == "* your name?"
        return guest

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@pytest.fixture
def chat(directory: str) -> Iterator[Chat]:
    need("twisted", "pip install twisted")
    chat = Chat(directory)
    yield chat
    for guest in chat.guests:
        guest.close()
    chat.process.kill()
    chat.process.communicate()


def line(guest: socket.socket) -> str:
    """Return the next line that a guest reads; "" at the end."""
    read = b""
    while not read.endswith(b"\n"):
        byte = guest.recv(1)
        if not byte:
            return ""
        read += byte
    return read.decode().rstrip("\n")


def test_guests_and_the_door(chat: Chat) -> None:
    assert chat.admin("who") == (0, "", "")
    assert chat.admin("say", "is there anybody?") == (0, "0\n", "")
    ann, bob = chat.enter(), chat.enter()
    ann.sendall(b"ann\n")
    assert line(ann) == "* ann is here"
    bob.sendall(b"ann\n")
    assert line(bob) == "* another name, please?"
    bob.sendall("bøb\r\nhello\r\n".encode())
    assert [line(ann), line(ann)] == ["* bøb is here", "bøb: hello"]
    assert [line(bob), line(bob)] == ["* bøb is here", "bøb: hello"]
    assert chat.admin("who") == (0, "ann\nbøb\n", "")
    assert chat.admin("say", "tea") == (0, "2\n", "")
    assert line(ann) == line(bob) == "* admin: tea"
    assert chat.admin("kick", "ann") == (0, "", "")
    assert [line(ann), line(ann)] == ["* admin: good bye", ""]
    assert line(bob) == "* ann has gone"
    assert chat.admin("who") == (0, "bøb\n", "")


def test_guest_who_is_not_here(chat: Chat) -> None:
    code, out, err = chat.admin("kick", "nobody")
    assert (code, out) == (1, "")
    assert err.startswith("twisted_chat.py: ")
    assert "nobody is not here" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_and_its_socket(chat: Chat, number: signal.Signals) -> None:
    ann = chat.enter()
    assert chat.end(number) == (0, "")
    assert line(ann) == ""
    assert not os.path.exists(chat.address)
    code, _, err = chat.admin("who")
    assert (code, err.count("\n")) == (1, 1)


def test_port_that_is_taken(chat: Chat) -> None:
    done = subprocess.run(
        [sys.executable, CHAT, "serve", "--port", str(chat.port), "--address", f"{chat.address}2"],
        env=chat.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert str(chat.port) in done.stderr
    assert not os.path.exists(f"{chat.address}2")


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["admin", "kick", "--help"], 0, "Send somebody away."),
        ([], 2, "which verb?"),
        (["admin"], 2, "which verb?"),
        (["admin", "sing"], 2, "invalid choice: 'sing'"),
    ],
)
def test_alone(words: list[str], code: int, found: str) -> None:
    need("twisted", "pip install twisted")
    done = subprocess.run(
        [sys.executable, CHAT, *words],
        env=Chat.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert found in " ".join((done.stdout + done.stderr).split())
