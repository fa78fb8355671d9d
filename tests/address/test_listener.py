"""The socket's birth and life: who lives there already, modes, vanished paths, passed sockets.

The numbers of the hazards are those of the table in docs/security.md. Their simple cases are in
tests/server/test_server.py, the socket's end is in test_listener_ends.py.
"""

from __future__ import annotations

import ast
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from addresses import (
    NOBODY,
    START,
    descriptors,
    lives,
    make_file,
    make_socket,
    needs_root,
    run_as,
    snapshot,
    users,
)
from harness import (
    COMMANDS,
    ROOT,
    Echo,
    Peer,
    answers,
    finish,
    settle,
)

from ipcpoll import (
    AlreadyRunning,
    Limits,
    Server,
    UnsafeAddress,
    UsageError,
)
from ipcpoll._address import lockfile
from ipcpoll._system.peer import credentials

pytestmark = pytest.mark.once


# ---------------------------------------------------------------------------------------------
# 1: something else stands there


@needs_root
def test_hazard_01_file_of_root_is_not_touched_by_another_user(directory):
    os.chmod(directory, 0o1777)
    make_file(f"{directory}/a.lock")
    make_file(f"{directory}/b")
    make_socket(f"{directory}/c")
    before = [snapshot(f"{directory}/{name}") for name in ("a.lock", "b", "c")]
    words = finish(run_as(NOBODY, START, *(f"{directory}/{name}" for name in "abc"))).splitlines()
    assert words == [
        f"UnsafeAddress the lock belongs to another user: {directory}/a.lock",
        f"FileExistsError [Errno 17] this is not a socket; it was left as it is: '{directory}/b'",
        f"UnsafeAddress the socket belongs to user 0: {directory}/c",
    ]
    assert [snapshot(f"{directory}/{name}") for name in ("a.lock", "b", "c")] == before
    assert sorted(os.listdir(directory)) == ["a.lock", "b", "c"]


# ---------------------------------------------------------------------------------------------
# 2: somebody lives there


def test_hazard_02_server_without_a_lock_is_not_disturbed(directory):
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        before = snapshot(path)
        with pytest.raises(AlreadyRunning) as caught:
            Server(path, Echo)
        assert caught.value.pid == os.getpid(), "the kernel says whose it is"
        assert snapshot(path) == before
        assert os.listdir(directory) == ["s"], "the lock was taken away again"


def test_hazard_02_full_backlog_of_our_own_server(directory):
    with Server(f"{directory}/s", Echo, limits=Limits(backlog=1)) as server, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Peer(server))
        before = snapshot(server.address)
        with pytest.raises(AlreadyRunning) as caught:
            Server(server.address, Echo)
        assert caught.value.pid == os.getpid()
        assert snapshot(server.address) == before


def test_hazard_02_socket_of_another_kind_is_not_disturbed(directory):
    """connect(2) says EPROTOTYPE: nobody knows whether it lives, so it is not dead."""
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(AlreadyRunning, match=r"\(pid unknown\)"):
            Server(path, Echo)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"still there", path)
        assert other.recv(100) == b"still there"
    Server(path, Echo).close()  # now it is dead


def test_hazard_02_refused_start_costs_nothing(directory):
    path = f"{directory}/s"
    with Server(path, Echo) as server:
        before = descriptors()
        for _ in range(10):
            with pytest.raises(AlreadyRunning):
                Server(path, Echo)
        assert descriptors() == before
        assert lives(server)


# ---------------------------------------------------------------------------------------------
# 5 and 6: modes and the umask


def test_hazard_05_mode_comes_before_the_name_and_the_name_before_clients(directory, monkeypatch):
    steps = []

    def recorded(owner, name):
        original = getattr(owner, name)

        def record(first, *arguments, **named):
            if owner is not os or first != lock_fd(first):
                steps.append(name)
            return original(first, *arguments, **named)

        monkeypatch.setattr(owner, name, record)

    def lock_fd(thing):
        is_file = isinstance(thing, int) and stat.S_ISREG(os.fstat(thing).st_mode)
        return thing if is_file else None

    for owner, name in (
        (os, "fchmod"),
        (os, "chmod"),
        (socket.socket, "bind"),
        (socket.socket, "listen"),
    ):
        recorded(owner, name)
    Server(f"{directory}/s", Echo).close()
    assert steps == ["fchmod", "bind", "listen"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_hazard_05_nobody_ever_sees_another_mode(directory, umask):
    """A thread looks all the time, while servers come and go."""
    path = f"{directory}/s"
    modes, seen = set(), []
    done = threading.Event()

    def look():
        while not done.is_set():
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue
            modes.add((stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)))
            seen.append(1)

    before, interval = os.umask(umask), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        starts = 0
        while starts < 100 or len(seen) < 100:
            assert time.monotonic() < deadline
            Server(path, Echo).close()
            starts += 1
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
        os.umask(before)
    assert modes == {(stat.S_IFSOCK, 0o600)}


@needs_root
def test_hazard_05_another_user_can_not_connect(directory):
    os.chmod(directory, 0o755)
    with Server(f"{directory}/s", Echo) as server:
        words = finish(
            run_as(
                NOBODY,
                "import errno, socket, ipcpoll\n"
                "from harness import Echo\n"
                "with socket.socket(socket.AF_UNIX) as sock:\n"
                "    print(errno.errorcode[sock.connect_ex(sys.argv[1])])\n"
                "try:\n"
                "    ipcpoll.send(Echo(1), sys.argv[1])\n"
                "except ipcpoll.UntrustedPeer as error:\n"
                "    print(error)\n",
                server.address,
            )
        ).splitlines()
        assert words == [
            "EACCES",
            f"user {NOBODY} may not connect: the socket, or a directory above it, is closed to "
            f"this user; nothing was sent ({server.address})",
        ]
        settle(server)
        assert server.stats()["accepted"] == 0


def test_hazard_05_platform_whose_sockets_have_no_mode_before_bind(directory, monkeypatch):
    """As on macOS: the mode is given after bind(2) and before listen(2)."""
    fchmod = os.fchmod

    def not_for_sockets(fd, mode):
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", not_for_sockets)
    listen = socket.socket.listen

    def listen_and_look(sock, *backlog):
        assert stat.S_IMODE(os.stat(f"{directory}/s").st_mode) == 0o600
        listen(sock, *backlog)

    monkeypatch.setattr(socket.socket, "listen", listen_and_look)
    with Server(f"{directory}/s", Echo) as server:
        assert lives(server)


def test_hazard_06_package_never_calls_umask():
    """It belongs to the whole process: files of other threads would get wrong modes."""
    modules = sorted((ROOT / "ipcpoll").rglob("*.py"))
    assert len(modules) > 20
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            assert name != "umask", f"{module.name}:{node.lineno}"


def test_hazard_06_files_of_other_threads_have_their_modes(directory):
    umask = os.umask(0o022)
    done = threading.Event()
    modes = [set() for _ in range(4)]

    def make_files(number):
        path = f"{directory}/{number}.txt"
        while not done.is_set():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            modes[number].add(stat.S_IMODE(os.stat(path).st_mode))
            os.unlink(path)

    threads = [threading.Thread(target=make_files, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 20
        starts = 0
        while starts < 100 or not all(modes):
            assert time.monotonic() < deadline
            Server(f"{directory}/s", Echo).close()
            starts += 1
    finally:
        done.set()
        for thread in threads:
            thread.join()
        os.umask(umask)
    assert modes == [{0o644}] * 4


UMASKS = """
import json, signal, stat
import ipcpoll
from harness import Echo, Peer, answers

umask = int(sys.argv[1], 8)
EVENTS = {"os.mkdir", "open", "os.chmod", "fcntl.flock", "os.truncate", "socket.bind",
          "socket.__new__", "socket.connect", "os.remove"}


def child(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(step, address):
    left = [step]

    def hook(event, arguments):
        if event in EVENTS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def start():
        server = ipcpoll.Server.__new__(ipcpoll.Server)
        sys.addaudithook(hook)
        server.__init__(address, Echo)
        os.kill(os.getpid(), signal.SIGUSR1)

    return child(start) == -signal.SIGKILL


def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


def good(address):
    with ipcpoll.Server(address, Echo) as server, Peer(server) as peer:
        peer.call(1, "Echo", value=1)
        assert answers(server, peer, 1) == [[1, 0, 1]]
        path = server.address
        directory = os.path.dirname(path)
        modes = [mode(path), mode(path + ".lock"), mode(directory)]
    assert os.listdir(directory) == [], os.listdir(directory)
    return modes


directory = os.environ["XDG_RUNTIME_DIR"]
os.mkdir(directory + "/path", 0o700)
os.umask(umask)
for address in ("name", directory + "/path/s"):
    modes = {tuple(good(address))}
    # A crash when it runs, and one before each step of the start: with and without what an
    # earlier one has left.
    assert child(lambda: (ipcpoll.Server(address, Echo), os.kill(os.getpid(), 9))) == -9
    modes.add(tuple(good(address)))
    step = 1
    while True:
        if address == "name":
            os.rmdir(directory + "/ipcpoll")
        if not die_at(step, address):
            break
        modes.add(tuple(good(address)))
        step += 1
    assert step > 7, step
    good(address)  # and the last one left a socket and a lock
    step = 1
    while True:
        assert child(lambda: (ipcpoll.Server(address, Echo), os.kill(os.getpid(), 9))) == -9
        if not die_at(step, address):
            break
        modes.add(tuple(good(address)))
        step += 1
    good(address)
    [each] = modes
    print(*each)
"""


@pytest.mark.parametrize("umask", ["0", "022", "077", "0777"])
@users
def test_hazard_06_modes_and_crashes_under_every_umask(directory, user, umask, monkeypatch):
    """A server that is killed at any step of its start keeps nobody from starting."""
    os.chown(directory, user, user)
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    assert finish(run_as(user, UMASKS, umask)).splitlines() == ["0o600 0o600 0o700"] * 2


@users
def test_hazard_06_live_socket_that_nobody_may_connect_to_keeps_its_mode(directory, user):
    """It looks like one that was left by a death under a umask of 0777; it is not dead."""
    os.chown(directory, user, user)
    source = """
import socket, stat
import ipcpoll
from harness import Echo
path = sys.argv[1]
with socket.socket(socket.AF_UNIX) as other:
    other.bind(path)
    other.listen()
    os.chmod(path, 0)
    try:
        ipcpoll.Server(path, Echo)
    except ipcpoll.AlreadyRunning as error:
        print(error.pid == os.getpid(), stat.S_IMODE(os.stat(path).st_mode))
"""
    assert finish(run_as(user, source, f"{directory}/s")) == "True 0\n"


# ---------------------------------------------------------------------------------------------
# 11: the path vanishes


def remove_socket(path):
    os.unlink(path)


def remove_lock_too(path):
    os.unlink(path)
    os.unlink(path + ".lock")


def remove_directory(path):
    """As a logout does, and the next login."""
    shutil.rmtree(os.path.dirname(path))
    os.mkdir(os.path.dirname(path), 0o700)


def rename_directory(path):
    parent = os.path.dirname(path)
    os.rename(parent, parent + ".old")
    os.mkdir(parent, 0o700)


REMOVALS = [remove_socket, remove_lock_too, remove_directory, rename_directory]


@pytest.mark.parametrize("remove", REMOVALS, ids=lambda remove: remove.__name__)
def test_hazard_11_path_that_vanished_is_made_anew(directory, remove):
    """Twice. Who is connected, or waits to be, is served."""
    parent = f"{directory}/d"
    os.mkdir(parent, 0o700)
    path = f"{parent}/s"
    before = descriptors()
    with Server(path, COMMANDS) as server, ExitStack() as stack:
        fileno = server.fileno()
        connected = stack.enter_context(Peer(server))
        connected.call(1, "Echo", value=1)
        assert answers(server, connected, 1) == [[1, 0, 1]]
        for turn in (2, 3):
            waiting = stack.enter_context(Peer(server))
            waiting.call(turn, "Echo", value=turn)
            assert server.reachable()
            remove(path)
            shutil.rmtree(parent + ".old", ignore_errors=True)
            assert not server.reachable()
            opened = descriptors()
            server.rebind()
            assert server.reachable()
            assert server.fileno() == fileno
            assert descriptors() == opened + 1, "the one that waited was taken in"
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert answers(server, waiting, 1) == [[turn, 0, turn]]
            connected.call(turn, "Echo", value=turn)
            assert answers(server, connected, 1) == [[turn, 0, turn]]
            assert lives(server)
            with pytest.raises(AlreadyRunning):
                Server(path, Echo)
        settle(server)
    assert os.listdir(parent) == []
    assert descriptors() == before


def test_hazard_11_full_backlog_comes_along(directory):
    """The kernel lets in one more than it was told."""
    with (
        Server(f"{directory}/s", COMMANDS, limits=Limits(backlog=3)) as server,
        ExitStack() as stack,
    ):
        waiting = [stack.enter_context(Peer(server)) for _ in range(4)]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as fifth:
            assert fifth.connect_ex(server.address) == errno.EAGAIN
        for peer in waiting:
            peer.call(1, "Echo", value=1)
        os.unlink(server.address)
        server.rebind()
        for peer in waiting:
            assert answers(server, peer, 1) == [[1, 0, 1]]


def test_hazard_11_full_backlog_is_told_of_the_end(directory):
    with ExitStack() as stack:
        server = stack.enter_context(Server(f"{directory}/s", COMMANDS, limits=Limits(backlog=3)))
        waiting = [stack.enter_context(Peer(server)) for _ in range(4)]
        server.close()
        for peer in waiting:
            [[_, kind, error]] = peer.received()
            assert (kind, error["code"]) == (1, "shutting-down")


@pytest.mark.parametrize("remove", REMOVALS[1:], ids=lambda remove: remove.__name__)
def test_hazard_11_path_that_another_server_took(directory, remove):
    parent = f"{directory}/d"
    os.mkdir(parent, 0o700)
    path = f"{parent}/s"
    with Server(path, COMMANDS) as old, Peer(old) as peer:
        peer.call(1, "Echo", value=1)
        assert answers(old, peer, 1) == [[1, 0, 1]]
        remove(path)
        with Server(path, COMMANDS) as new:
            opened = descriptors()
            for _ in range(2):
                with pytest.raises(AlreadyRunning):
                    old.rebind()
            assert descriptors() == opened
            assert new.reachable()
            assert lives(new)
            assert not old.reachable()
            peer.call(2, "Echo", value=2)
            assert answers(old, peer, 1) == [[2, 0, 2]], "the old one lives on"
        old.rebind()
        assert lives(old)
    assert os.listdir(parent) == []


def test_hazard_11_path_that_a_server_without_a_lock_took(directory):
    path = f"{directory}/s"
    with Server(path, COMMANDS) as server:
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            other.listen()
            with pytest.raises(AlreadyRunning):
                server.rebind()
        assert lockfile.owner(path) == os.getpid(), "it still has its lock"
        server.rebind()  # the other one is dead now
        assert lives(server)
    assert os.listdir(directory) == []


def test_hazard_11_path_that_something_else_took(directory):
    path = f"{directory}/s"
    with Server(path, COMMANDS) as server:
        os.unlink(path)
        make_file(path)
        before = snapshot(path)
        with pytest.raises(FileExistsError):
            server.rebind()
        assert snapshot(path) == before
    assert os.listdir(directory) == ["s"]


def test_hazard_11_directory_that_is_gone_or_unsafe_now(directory):
    parent = f"{directory}/d"
    os.mkdir(parent, 0o700)
    with Server(f"{parent}/s", COMMANDS) as server:
        os.unlink(server.address)
        os.chmod(parent, 0o777)
        opened = descriptors()
        with pytest.raises(UnsafeAddress):
            server.rebind()
        shutil.rmtree(parent)
        with pytest.raises(FileNotFoundError):
            server.rebind()
        assert descriptors() == opened
        os.mkdir(parent, 0o700)
        server.rebind()
        assert lives(server)


def test_hazard_11_directory_of_a_name_is_made_anew(directory, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    with Server("calc", COMMANDS) as server:
        shutil.rmtree(f"{directory}/ipcpoll")
        assert not server.reachable()
        server.rebind()
        assert stat.S_IMODE(os.stat(f"{directory}/ipcpoll").st_mode) == 0o700
        assert lives(server)


def test_hazard_11_listener_that_can_not_be_watched(server, connect, monkeypatch):
    """The server goes on, and can try again."""
    peer = connect(server)
    peer.call(1, "Echo", value=1)
    assert answers(server, peer, 1) == [[1, 0, 1]]
    os.unlink(server.address)
    opened = descriptors()

    def no_space(fd, mask):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(server._hub.poller, "register", no_space)
        with pytest.raises(OSError, match="No space left"):
            server.rebind()
    assert not server.reachable()
    assert descriptors() <= opened
    peer.call(2, "Echo", value=2)
    assert answers(server, peer, 1) == [[2, 0, 2]]
    server.rebind()
    assert lives(server)
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)


def test_hazard_11_reachable_server_has_nothing_to_make(server, monkeypatch):
    before = snapshot(server.address)
    server.rebind()
    assert snapshot(server.address) == before
    server.close()
    assert not server.reachable()
    with pytest.raises(UsageError, match="the server is closed"):
        server.rebind()


# ---------------------------------------------------------------------------------------------
# 16: a socket that somebody else made


ACTIVATED = """
import os, socket, sys
os.dup2(int(sys.argv[1]), 3)  # systemd has done that
import ipcpoll
from harness import COMMANDS, Host, serve_until
assert os.environ["LISTEN_FDS"] == "1"
server = ipcpoll.Server.from_socket(socket.socket(fileno=3), COMMANDS)
print(os.getpid(), server.address, server.reachable(), flush=True)
with server:
    serve_until(server, lambda: server.stats()["turns"] == 1)
"""


def activate(listener):
    """Start a server as systemd does: the socket is its descriptor 3."""
    fd = listener.fileno()
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", ACTIVATED, str(fd)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(fd,),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support", "LISTEN_FDS": "1"},
    )


@pytest.fixture
def listener(directory):
    """A socket as systemd makes it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{directory}/s")
        sock.listen()
        yield sock


def test_hazard_16_socket_that_listens_already(directory, listener):
    """It is neither locked nor removed; who waits at the end waits for the next server."""
    path = f"{directory}/s"
    before = snapshot(path)
    with Peer(path) as early:  # before there is any server
        early.call(1, "Echo", value=1)
        assert credentials(early.socket).pid == os.getpid()
        first = activate(listener)
        finish(first)
        assert early.received()[0] == [1, 0, 1]
        assert os.listdir(directory) == ["s"], "no lock"
        assert snapshot(path) == before
        second = activate(listener)
        pid, *words = second.stdout.readline().split()
        assert words == [path, "True"]
        with Peer(path) as late:
            assert credentials(late.socket).pid == int(pid), "whoever serves it, since it listened"
            late.call(2, "Echo", value=2)
            finish(second)
            assert late.received()[0] == [2, 0, 2]
    assert snapshot(path) == before
    assert os.listdir(directory) == ["s"]


def test_hazard_16_what_waits_in_the_backlog_stays_for_the_next(listener):
    with Server.from_socket(listener.dup(), COMMANDS) as server, Peer(server) as waiting:
        waiting.call(1, "Echo", value=1)
        server.close()
        assert waiting.received() == []
        assert not waiting.ended
        with Server.from_socket(listener.dup(), COMMANDS) as following:
            assert answers(following, waiting, 1) == [[1, 0, 1]]


def test_hazard_16_path_that_is_gone_is_said_and_not_made_anew(directory, listener):
    with Server.from_socket(listener.dup(), COMMANDS) as server:
        assert server.reachable()
        os.unlink(server.address)
        assert not server.reachable()
        with pytest.raises(UsageError, match="the socket was made by somebody else"):
            server.rebind()
        make_file(server.address)
        assert not server.reachable()
        before = snapshot(server.address)
    assert snapshot(f"{directory}/s") == before
    assert os.listdir(directory) == ["s"]


def not_listening(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    return sock


def datagram(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    return sock


def packets(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(path)
    sock.listen()
    return sock


def tcp(_):
    sock = socket.socket(socket.AF_INET)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


def abstract(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("\0" + path)
    sock.listen()
    return sock


def connected(_):
    one, other = socket.socketpair()
    other.close()
    return one


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (datagram, "a server needs a Unix stream socket"),
        (packets, "a server needs a Unix stream socket"),
        (tcp, "a server needs a Unix stream socket"),
        (not_listening, "the socket must be listening already"),
        (connected, "the socket must be listening already"),
        (abstract, "the socket must have a path"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hazard_16_socket_that_is_refused_is_still_the_callers(directory, make, words):
    before = descriptors()
    with make(f"{directory}/s") as sock:
        blocking, name = sock.getblocking(), sock.getsockname()
        files = os.listdir(directory)
        with pytest.raises(ValueError, match=words):
            Server.from_socket(sock, Echo)
        assert sock.getblocking() == blocking
        assert sock.getsockname() == name
        assert os.listdir(directory) == files
    assert descriptors() == before


def test_hazard_16_wrong_commands_leave_the_socket_alone(listener):
    with pytest.raises(TypeError):
        Server.from_socket(listener, [5])
    assert listener.getblocking()
    with Server.from_socket(listener, COMMANDS) as server:
        assert lives(server)
    assert listener.fileno() == -1, "it belonged to the server"
