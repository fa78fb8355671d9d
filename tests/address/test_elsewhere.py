"""One name, several places: where a client searches, and what it says if it finds nobody.

The other program is a real process each time: with another ``XDG_RUNTIME_DIR``, without a session,
with a ``/tmp`` of its own, of another user.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import COMMANDS, PATIENCE, Echo, Host, readable, run_python

from ipcpoll import (
    AlreadyRunning,
    Client,
    NotRunning,
    Server,
    StaleSocket,
    runtime_path,
    send,
    serve_or_send,
)
from ipcpoll._address import elsewhere, lockfile
from ipcpoll._address import names as address
from ipcpoll._system import peer

NOBODY = 65534
NAME = f"calc{os.getpid()}"
"""Others may run these tests at the same time."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def machine(directory: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of its own: no login yet, and an empty /tmp. The directory has both."""
    os.chmod(directory, 0o755)
    place = Path(directory)
    (place / "user").mkdir()
    (place / "tmp").mkdir()
    (place / "tmp").chmod(0o1777)
    monkeypatch.setattr(address, "_LOGINS", str(place / "user"))
    monkeypatch.setattr(address, "_SHARED", str(place / "tmp"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return place


def log_in(machine: Path) -> Path:
    """Make this user's directory of the login, as a session does."""
    login = machine / "user" / str(os.geteuid())
    login.mkdir(mode=0o700)
    return login


@contextmanager
def served(server: Server[Any]) -> Iterator[None]:
    """Serve in a thread."""
    over = threading.Event()
    host = Host()

    def serve() -> None:
        while not over.is_set():
            if readable(server, 0.01):
                server.poll(host)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


PROGRAM = """
import os, signal, sys
from harness import *
from ipcpoll import *
from ipcpoll._address import names as address
where, uid, logins, shared, name = sys.argv[1:]
if int(uid):
    os.setgid(int(uid))
    os.setuid(int(uid))
os.environ["XDG_RUNTIME_DIR"] = where
address._LOGINS, address._SHARED = logins, shared
server = Server(name, COMMANDS)
print(server.address, flush=True)
signal.pause()
"""


@pytest.fixture
def program(machine: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Start a process that serves "calc"; return its pid and where its socket lies."""
    with ExitStack() as stack:

        def start(
            runtime: object = "", uid: int = 0, prefix: tuple[str, ...] = ()
        ) -> tuple[int, str]:
            arguments = [str(runtime), str(uid), f"{machine}/user", f"{machine}/tmp", NAME]
            process = run_python(PROGRAM, *arguments, prefix=prefix)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line, process.communicate()[1]
            return process.pid, line

        yield start


def why_not(name: str = NAME) -> str:
    with pytest.raises(NotRunning) as caught:
        send(Echo(1), name, timeout=PATIENCE)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------
# The same name, the same place


@pytest.mark.parametrize("variable", [False, True])
def test_started_without_a_session_and_asked_from_one(machine, monkeypatch, variable):
    uid = os.geteuid()
    with Server(NAME, COMMANDS) as server, served(server):
        assert server.address == f"{machine}/tmp/ipcpoll-{uid}/{NAME}.sock"
        login = log_in(machine)
        if variable:
            monkeypatch.setenv("XDG_RUNTIME_DIR", f"{login}/")
        assert str(runtime_path(NAME)) == f"{login}/ipcpoll/{NAME}.sock"
        assert send(Echo(1), NAME, timeout=PATIENCE) == 1
        with Client(NAME, timeout=PATIENCE) as client:
            assert client.address == f"{login}/ipcpoll/{NAME}.sock"
            assert client.call(Echo(2)) == 2
            assert client.address == server.address
            assert client.submit(Echo(3)).result() == 3
            assert client.request("Echo", {"value": 4}) == 4


def test_in_a_loop(machine):
    with Server(NAME, COMMANDS) as server, served(server):
        log_in(machine)
        with Client(NAME, timeout=PATIENCE) as client:
            future = client.submit(Echo(5))
            while not future.done():
                if readable(client, PATIENCE):
                    client.poll()
            assert future.result() == 5


def test_one_server_for_a_name_in_both_places(machine):
    """The second is told, and hands its command over."""
    with Server(NAME, COMMANDS) as server, served(server):
        log_in(machine)
        with pytest.raises(AlreadyRunning) as caught:
            Server(NAME, COMMANDS)
        assert caught.value.pid == os.getpid()
        assert server.address in str(caught.value)
        assert serve_or_send(NAME, COMMANDS, Echo(6), timeout=PATIENCE) == (None, 6)
    with Server(NAME, COMMANDS) as server:
        assert server.address == str(runtime_path(NAME))


def test_dead_socket_in_the_other_place_is_in_nobodys_way(machine):
    place = Path(f"{machine}/tmp/ipcpoll-{os.geteuid()}")
    server = Server(NAME, COMMANDS)
    server._listener.close(unlink=False)  # as if it was killed
    login = log_in(machine)
    assert "no socket at" in why_not()
    with Server(NAME, COMMANDS) as other, served(other):
        assert other.address == f"{login}/ipcpoll/{NAME}.sock"
        assert send(Echo(7), NAME, timeout=PATIENCE) == 7
    assert (place / f"{NAME}.sock").exists()
    server.close()


def test_dead_socket_in_the_first_place(machine):
    """Behind it lives the one without a session."""
    login = log_in(machine)
    dead = Server(NAME, COMMANDS)
    dead._listener.close(unlink=False)
    hidden = login.rename(machine / "hidden")
    with Server(NAME, COMMANDS) as server, served(server):
        hidden.rename(login)
        assert send(Echo(8), NAME, timeout=PATIENCE) == 8
    with pytest.raises(StaleSocket):
        send(Echo(9), NAME)
    dead.close()


@as_root
@pytest.mark.parametrize("fault", ["open to others", "another user's", "a link"])
def test_other_place_must_be_as_private(machine, fault):
    """Nobody can lead the name to a program there by making it first."""
    with Server(NAME, COMMANDS) as server, served(server):
        place = Path(server.address).parent
        if fault == "open to others":
            place.chmod(0o755)
        elif fault == "another user's":
            os.chown(place, NOBODY, NOBODY)
        else:
            place.rename(f"{place}.real")
            place.symlink_to(f"{place}.real")
        login = log_in(machine)
        assert why_not().startswith(
            f"the program does not run: there is no socket at {login}/ipcpoll/{NAME}.sock nor at "
        )
        Server(NAME, COMMANDS).close()
        if fault != "a link":
            os.chown(place, 0, 0)
            place.chmod(0o700)


def test_variable_of_ones_own_choice_is_a_wish_to_be_apart(machine, monkeypatch, program):
    """As in tests: they must not reach the program that the user works with."""
    log_in(machine)
    program()
    apart = machine / "apart"
    apart.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(apart))
    assert f"no socket at {apart}/ipcpoll/{NAME}.sock;" in why_not()
    Server(NAME, COMMANDS).close()


# ---------------------------------------------------------------------------------------------
# Another place


def test_another_runtime_directory(machine, program):
    """Said, with the path to ask it by; it is not asked without that."""
    other = machine / "other"
    other.mkdir(mode=0o700)
    pid, there = program(other)
    uid = os.geteuid()
    login = log_in(machine)
    assert why_not() == (
        "the program does not run: there is no socket at "
        f"{login}/ipcpoll/{NAME}.sock nor at {machine}/tmp/ipcpoll-{uid}/{NAME}.sock; but pid "
        f"{pid} serves this name at {there}, by another XDG_RUNTIME_DIR than here; ask it by "
        "that path"
    )
    assert "but" not in why_not(NAME + "2")
    assert "but" not in why_not(f"{machine}/{NAME}.sock")
    os.kill(pid, signal.SIGKILL)


@as_root
def test_user_and_root(machine, program, monkeypatch):
    """Root is told whose it is. A user is told nothing of root's, or of another user's."""
    theirs = machine / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, NOBODY, NOBODY)
    _, there = program(theirs, uid=NOBODY)
    assert why_not().endswith(
        f"; but user nobody runs it, at {there}, and lets in nobody else, root neither; become "
        "that user (runuser -u nobody -- ...)"
    )
    monkeypatch.setattr(elsewhere.os, "geteuid", lambda: 12345)
    monkeypatch.setattr(elsewhere, "_holder", lambda _: None)
    assert elsewhere.found([f"/nowhere/ipcpoll/{NAME}.sock"], is_name=True) == ""


@as_root
def test_private_tmp(machine, program):
    """Another directory at the same path: the kernel lists the socket, and stat(2) sees none."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    mount = f'mount -t tmpfs -o mode=1777 none {machine}/tmp && exec "$0" "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mount)
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace can be made here")
    pid, there = program(prefix=prefix)
    assert not os.path.exists(there)
    assert why_not() == (
        f"the program does not run: there is no socket at {there}; but pid {pid} listens at "
        f"{there} out of sight: it has a directory of its own there (a private /tmp), or the file "
        "was removed; use a path that both see, or Server.rebind()"
    )
    assert f"but pid {pid} listens at {there} out of sight" in why_not(there)


def test_file_that_was_removed(path):
    """`Server.rebind` is for that."""
    with Server(path, COMMANDS):
        os.unlink(path)
        assert f"pid {os.getpid()} listens at {path} out of sight" in why_not(path)


def test_without_proc(machine, monkeypatch, program):
    """Then nothing more can be said."""
    other = machine / "other"
    other.mkdir(mode=0o700)
    program(other)
    monkeypatch.setattr(elsewhere, "_SOCKETS", f"{machine}/nothing")
    assert why_not().endswith(f"{NAME}.sock")


def test_what_else_is_listed(monkeypatch, tmp_path):
    """Lines of another shape, sockets that don't listen, names that are none of ours."""
    lines = tmp_path / "unix"
    lines.write_bytes(
        b"Num       RefCount Protocol Flags    Type St Inode Path\n"
        b"0: 00000002 00000000 00000000 0001 03 11 /gone/ipcpoll-%d/calc.sock\n"
        b"0: 00000002 00000000 00010000 0001 01 12 @/gone/ipcpoll-%d/calc.sock\n"
        b"0: 00000002 00000000 00010000 0001 01 13 /proc/self/fd/9/calc.sock\n"
        b"0: 00000002 00000000 00010000 0001 01 14 /gone/elsewhere/calc.sock\n"
        b"0: 00000002 00000000 zz 0001 01 15 /gone/ipcpoll-%d/calc.sock\n"
        b"0: 00000002 00000000 00010000 0001 01 16 /gone/ipcpoll/calc.sock\n"
        b"0: 00000002 00000000 00010000 0001 01 17 /dev/null/ipcpoll/calc.sock\n"
        % ((os.geteuid(),) * 3)
    )
    monkeypatch.setattr(elsewhere, "_SOCKETS", str(lines))
    assert elsewhere.found(["/here/ipcpoll/calc.sock"], is_name=True) == ""
    with lines.open("ab") as file:
        own = b"/gone \xff/ipcpoll-%d/calc.sock" % os.geteuid()
        file.write(b"0: 00000002 00000000 00010000 0001 01 18 %s\n" % own)
    said = elsewhere.found(["/here/ipcpoll/calc.sock"], is_name=True)
    assert said.startswith(
        f"; but the program (pid unknown) listens at /gone \\xff/ipcpoll-{os.geteuid()}/calc.sock"
    )


# ---------------------------------------------------------------------------------------------
# Whose pid it is

LIVES_WITH = """
import fcntl, os, signal, sys
path = sys.argv[1]
fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, b"%d\\n" % os.getpid())
print(os.getpid(), flush=True)
signal.pause()
"""


@as_root
def test_pid_of_another_namespace_is_not_named(path):
    """It calls itself pid 1; here that is the first process of the system."""
    prefix = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace can be made here")
    process = run_python(LIVES_WITH, path, prefix=prefix)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert lockfile.owner(path) is None
        assert lockfile.owner(path, alive=True) is None
        with pytest.raises(AlreadyRunning, match=r"\(pid unknown\)") as caught:
            Server(path, COMMANDS)
        assert caught.value.pid is None
    finally:
        process.kill()
        process.communicate()


def test_pid_of_the_holder_is_named(path):
    process = run_python(LIVES_WITH, path)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert lockfile.owner(path, alive=True) == process.pid
        with pytest.raises(AlreadyRunning) as caught:
            Server(path, COMMANDS)
        assert caught.value.pid == process.pid
    finally:
        process.kill()
        process.communicate()
    assert lockfile.owner(path) == process.pid, "it has ended, and it is known who it was"
    assert lockfile.owner(path, alive=True) is None


def test_number_that_is_used_again(path):
    """The lock is older than the process that has its number now."""
    lock = Path(path + ".lock")
    lock.write_text(f"{os.getpid()}\n")
    assert lockfile.owner(path) == os.getpid()
    os.utime(lock, (0, 0))
    assert lockfile.owner(path) is None
    lock.write_text("1\n")
    assert lockfile.owner(path) is None


def test_proc_of_another_namespace(path, monkeypatch):
    """Its numbers mean other processes."""
    Path(path + ".lock").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(peer.os, "readlink", lambda _: "4711")
    assert lockfile.owner(path) is None
    assert lockfile.owner(path, alive=True) is None
    assert not peer.is_stopped(os.getpid())
