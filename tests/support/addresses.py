"""What tests of addresses share: processes of other users, and what may lie in a socket's place."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import (
    ROOT,
    Peer,
    answers,
    run_python,
)

ROOT_USER = os.geteuid() == 0
NOBODY = 65534
SOMEBODY = 12345

needs_root = pytest.mark.skipif(not ROOT_USER, reason="needs root to become another user")
users = pytest.mark.parametrize(
    "user",
    [
        pytest.param(os.geteuid(), id="this user"),
        pytest.param(NOBODY, id="another user", marks=needs_root),
    ],
)

# All is imported before: another user may not be able to read this Python, nor this checkout.
BECOME = """
import os, sys
import ctypes, difflib, json, signal, socket, stat, threading, time, traceback
import harness, ipcpoll
user = int(sys.argv.pop(1))
if user != os.geteuid():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
"""


def run_as(user, source, *arguments):
    """Start a Python process of a user."""
    return run_python(BECOME + source, str(user), *arguments)


def in_child(action):
    """Fork; return what `action` returned in the child, as text. It may die instead: ''."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(action()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def snapshot(path):
    """Return what nobody may change about a file."""
    status = os.lstat(path)
    content = None
    if stat.S_ISREG(status.st_mode):
        content = Path(path).read_bytes()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return (
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_size,
        status.st_nlink,
        status.st_mtime_ns,
        content,
    )


def lives(server):
    """Return whether a server answers at its path."""
    with Peer(server) as peer:
        peer.call(1, "Echo", value=1)
        return answers(server, peer, 1) == [[1, 0, 1]]


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def make_file(path):
    Path(path).write_text("precious")
    os.chmod(path, 0o640)


def make_dangling_link(path):
    os.symlink(path + ".target", path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


START = """
import ipcpoll
from harness import Echo
for path in sys.argv[1:]:
    try:
        ipcpoll.Server(path, Echo).close()
    except OSError as error:
        print(type(error).__name__, error)
    else:
        print("fine")
"""


def file_system(path):
    """Return the type of the file system that a path lies on."""
    words = ["stat", "-f", "-c", "%T", path]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def a_place(kind):
    """Return a directory on a tmpfs, or on a disk; skip where there is none."""
    places = ["/dev/shm"] if kind == "tmpfs" else [tempfile.gettempdir(), "/var/tmp", str(ROOT)]
    for place in places:
        if os.access(place, os.W_OK) and (file_system(place) == "tmpfs") == (kind == "tmpfs"):
            return place
    pytest.skip(f"no {kind} among {', '.join(places)}")
