"""The hazards of a socket's birth, life and death, each with its test.

The numbers are those of the table in docs/security.md. What is simple about them stands in
test_server.py, under the same numbers.

As root, what depends on the user is done a second time by a process of another one.
"""

from __future__ import annotations

import ast
import errno
import fcntl
import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import (
    COMMANDS,
    ROOT,
    Echo,
    Peer,
    answers,
    finish,
    run_python,
    serve_process,
    settle,
)

from ipcpoll import (
    AlreadyRunning,
    Client,
    Limits,
    Server,
    UnsafeAddress,
    UsageError,
)
from ipcpoll._address import lockfile
from ipcpoll._system.peer import credentials

pytestmark = pytest.mark.once

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


# ---------------------------------------------------------------------------------------------
# 1: something else stands there


def make_file(path):
    Path(path).write_text("precious")
    os.chmod(path, 0o640)


def make_numbers(path):
    """Nearly what a lock holds."""
    Path(path).write_text("1234\nprecious")


def make_long_number(path):
    Path(path).write_text("12345678901")


def make_link(path):
    make_file(path + ".target")
    os.symlink(path + ".target", path)


def make_dangling_link(path):
    os.symlink(path + ".target", path)


def make_hard_link(path):
    Path(path + ".target").write_text("")  # it could be a lock, but for its other name
    os.link(path + ".target", path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def make_foreign_file(path):
    Path(path).write_text("")
    os.chown(path, SOMEBODY, SOMEBODY)


LOCK_PLACES = {
    make_file: (FileExistsError, "this should be the lock of a server and is something else"),
    make_numbers: (FileExistsError, "this should be the lock of a server and is something else"),
    make_long_number: (FileExistsError, "this should be the lock of a server"),
    make_link: (UnsafeAddress, "the lock must not be a link"),
    make_dangling_link: (UnsafeAddress, "the lock must not be a link"),
    make_hard_link: (UnsafeAddress, r"the lock has a second name \(hard link\)"),
    make_socket: (FileExistsError, "this should be the lock of a server and is something else"),
    os.mkfifo: (FileExistsError, "this should be the lock of a server and is something else"),
    os.mkdir: (FileExistsError, "this should be the lock of a server and is something else"),
}


@pytest.mark.parametrize("make", LOCK_PLACES, ids=lambda make: make.__name__)
def test_hazard_01_what_is_no_lock_is_not_touched(directory, make):
    """The lock's place too may be taken by anything. Row 8 is the same for links."""
    error, words = LOCK_PLACES[make]
    lock = f"{directory}/s.lock"
    make(lock)
    before = snapshot(lock), sorted(os.listdir(directory))
    open_before = descriptors()
    with pytest.raises(error, match=words) as caught:
        Server(f"{directory}/s", Echo)
    assert lock in str(caught.value)
    assert (snapshot(lock), sorted(os.listdir(directory))) == before
    assert descriptors() == open_before


@needs_root
def test_hazard_01_lock_of_another_user_is_not_touched(directory):
    lock = f"{directory}/s.lock"
    make_foreign_file(lock)
    before = snapshot(lock)
    with pytest.raises(UnsafeAddress, match=f"the lock belongs to user {SOMEBODY}"):
        Server(f"{directory}/s", Echo)
    assert snapshot(lock) == before


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


@users
def test_hazard_01_closed_file_at_the_place_of_the_lock_keeps_its_mode(directory, user):
    """It can't be opened, and is not an empty lock that lost its mode: nobody opens it by force."""
    lock = f"{directory}/s.lock"
    Path(lock).write_text("precious")
    os.chmod(lock, 0o400)
    for path in (directory, lock):
        os.chown(path, user, user)
    before = snapshot(lock)
    [words] = finish(run_as(user, START, f"{directory}/s")).splitlines()
    assert words.startswith(("FileExistsError", "UnsafeAddress", "PermissionError"))
    assert snapshot(lock) == before


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
# 3: two at once


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


@pytest.mark.parametrize("kind", ["tmpfs", "disk"])
@users
def test_hazard_03_many_processes_race_for_one_path(kind, user):
    """See race.py. By hand it runs for longer, and for a release for very long."""
    with tempfile.TemporaryDirectory(dir=a_place(kind), prefix="ipcpoll-") as directory:
        os.chmod(directory, 0o755)
        race = subprocess.run(
            [
                *(sys.executable, "-W", "error", str(ROOT / "tests" / "support" / "race.py")),
                *("--seconds", "3", "--directory", f"{directory}/race", "--user", str(user)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert race.stdout, race.stderr
        counts = json.loads(race.stdout)
        print(counts)
        assert counts["violations"] == []
        assert race.returncode == 0, race.stderr
        for what in ("starts", "already_running", "closed", "killed", "killed_itself", "answers"):
            assert counts[what] > 0, counts
    assert race.stderr == ""


# ---------------------------------------------------------------------------------------------
# 4: a lock on a file that has gone


def after_opening(monkeypatch, *acts):
    """Do something between the opening of the lock file and flock(2), once for each act."""
    flock = fcntl.flock
    left = list(acts)

    def act_and_flock(fd, operation):
        if left:
            left.pop(0)()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", act_and_flock)
    return left


def test_hazard_04_lock_that_was_removed_meanwhile_is_no_lock(directory, monkeypatch):
    path = f"{directory}/s"
    left = after_opening(monkeypatch, lambda: os.unlink(path + ".lock"))
    with Server(path, Echo) as server:
        assert not left
        assert Path(path + ".lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(AlreadyRunning):
            Server(path, Echo)
        assert lives(server)
    assert os.listdir(directory) == []


def test_hazard_04_lock_that_was_replaced_meanwhile_is_no_lock(directory, monkeypatch):
    """Another server has it now, which is about to make its socket."""
    path = f"{directory}/s"

    def replace():
        os.unlink(path + ".lock")
        other = os.open(path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        flock(other, fcntl.LOCK_EX)
        os.write(other, b"%d\n" % os.getpid())
        held.append(other)

    flock = fcntl.flock
    held = []
    after_opening(monkeypatch, replace)
    before = descriptors()
    with pytest.raises(AlreadyRunning) as caught:
        Server(path, Echo)
    assert caught.value.pid == os.getpid()
    assert os.listdir(directory) == ["s.lock"], "it is the other's"
    os.close(held[0])
    assert descriptors() == before


def test_hazard_04_owner_that_ends_between_two_steps(directory, monkeypatch):
    """The lock is opened while a server holds it, and had after that server has ended."""
    path = f"{directory}/s"
    first = Server(path, Echo)
    after_opening(monkeypatch, first.close)
    with Server(path, Echo) as second:
        assert second.reachable()
        assert lives(second)


def test_hazard_04_lock_that_always_vanishes_is_given_up(directory, monkeypatch):
    path = f"{directory}/s"
    before = descriptors()
    after_opening(monkeypatch, *[lambda: os.unlink(path + ".lock")] * 64)
    with pytest.raises(OSError, match="servers start and end here faster"):
        Server(path, Echo)
    assert os.listdir(directory) == []
    assert descriptors() == before


def test_hazard_04_file_system_without_locks_is_said(directory, monkeypatch):
    """Without a lock nothing is promised, so there is no server."""

    def no_locks(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    before = descriptors()
    with pytest.raises(
        OSError, match="this file system has no locks: No locks available"
    ) as caught:
        Server(f"{directory}/s", Echo)
    assert caught.value.filename == f"{directory}/s.lock"
    assert os.listdir(directory) == ["s.lock"], "it may be another's, who has it locked elsewhere"
    assert descriptors() == before


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
# 7: whose directory


def expected_for_path(user, owner, mode):
    """Return what a start says in a directory."""
    if owner not in (user, 0):
        return f"belongs to user {owner}, who could replace the socket"
    if mode & 0o022 and not mode & stat.S_ISVTX:
        return (
            "can be written to by others, who could replace the socket "
            f"(its mode is {mode:04o}; chmod go-w mends it)"
        )
    if owner != user and not mode & 0o002:
        return "no lock can be had here: Permission denied"
    return "fine"


@users
def test_hazard_07_directory_of_a_path(directory, user):
    os.chmod(directory, 0o755)
    owners = {user, 0, SOMEBODY} if ROOT_USER else {user}
    cases = [
        (owner, mode)
        for owner in sorted(owners)
        for mode in (0o700, 0o755, 0o775, 0o757, 0o777, 0o1777, 0o1775, 0o2755)
        if user in (0, owner) or mode != 0o700
    ]
    paths = []
    for number, (owner, mode) in enumerate(cases):
        path = f"{directory}/{number}"
        os.mkdir(path)
        os.chmod(path, mode)
        if ROOT_USER:
            os.chown(path, owner, owner)
            os.chmod(path, mode)
        paths.append(path)
    said = finish(run_as(user, START, *(f"{path}/s" for path in paths))).splitlines()
    for (owner, mode), path, words in zip(cases, paths, said, strict=True):
        expected = expected_for_path(user, owner, mode)
        if expected == "fine":
            assert words == "fine", (owner, oct(mode))
        elif expected.startswith("no lock"):
            assert words == f"PermissionError [Errno 13] {expected}: '{path}/s.lock'"
        else:
            assert words == f"UnsafeAddress no socket is made in {path}: it {expected}"
        assert os.listdir(path) == []
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


def make_private(path):
    os.mkdir(path, 0o700)


def with_mode(mode):
    def make(path):
        os.mkdir(path)
        os.chmod(path, mode)

    make.__name__ = oct(mode)
    return make


def foreign_directory(path):
    os.mkdir(path, 0o700)
    os.chown(path, SOMEBODY, SOMEBODY)


def link_to_a_good_directory(path):
    os.mkdir(path + ".target", 0o700)
    os.symlink(path + ".target", path)


NAME_PLACES = {
    make_private: "fine",
    with_mode(0o500): "fine",  # its owner's rights come back
    with_mode(0o000): "fine",
    with_mode(0o750): r"it can be entered by others \(its mode is 0750, it should be 0700\)",
    with_mode(0o711): r"it can be entered by others \(its mode is 0711, it should be 0700\)",
    with_mode(0o1777): r"it can be entered by others \(its mode is 1777, it should be 0700\)",
    link_to_a_good_directory: "must be a directory, not a link or a file",
    make_dangling_link: "must be a directory, not a link or a file",
    make_file: "must be a directory, not a link or a file",
    foreign_directory: "belongs to (user 12345|another user, or keeps this one out)",
}


@pytest.mark.parametrize("make", NAME_PLACES, ids=lambda make: make.__name__)
@users
def test_hazard_07_directory_of_a_name(directory, user, make, monkeypatch):
    if make is foreign_directory and not ROOT_USER:
        pytest.skip("needs root to give a directory away")
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    place = f"{directory}/ipcpoll"
    make(place)
    for path in [directory, *([] if make is foreign_directory else Path(directory).iterdir())]:
        if ROOT_USER:
            os.chown(path, user, user, follow_symlinks=False)
    before = snapshot(place)
    [words] = finish(run_as(user, START, "calc")).splitlines()
    if NAME_PLACES[make] == "fine":
        assert words == "fine"
        assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    else:
        assert words.startswith("UnsafeAddress ")
        assert place in words
        assert re.search(NAME_PLACES[make], words)
        assert snapshot(place) == before


def test_hazard_07_directory_that_is_missing_is_not_made_for_a_path(directory):
    with pytest.raises(FileNotFoundError):
        Server(f"{directory}/a/s", Echo)
    assert os.listdir(directory) == []


def test_hazard_07_only_the_last_directory_of_a_name_is_made(directory, monkeypatch):
    monkeypatch.setattr(
        "ipcpoll._address.names._runtime_directory", lambda: Path(f"{directory}/a/b")
    )
    with pytest.raises(FileNotFoundError, match="the directory of this name can't be made"):
        Server("calc", Echo)
    assert os.listdir(directory) == []


# ---------------------------------------------------------------------------------------------
# 8: links


@users
@pytest.mark.parametrize("target", ["there", "not there"])
def test_hazard_08_nothing_is_written_through_a_link(directory, user, target):
    lock, other = f"{directory}/s.lock", f"{directory}/other"
    if target == "there":
        Path(other).write_text("")  # an empty file could be a lock
        os.chmod(other, 0o644)
    os.symlink(other, lock)
    if ROOT_USER:
        for path in [directory, *Path(directory).iterdir()]:
            os.chown(path, user, user, follow_symlinks=False)
    before = [snapshot(path) for path in sorted(Path(directory).iterdir())]
    [words] = finish(run_as(user, START, f"{directory}/s")).splitlines()
    assert words == f"UnsafeAddress the lock must not be a link: {lock}"
    assert [snapshot(path) for path in sorted(Path(directory).iterdir())] == before


def test_hazard_08_link_to_the_directory_of_a_path_leads_to_the_same_address(directory):
    """Whoever links to a directory may; what is checked, and locked, is where it leads."""
    os.mkdir(f"{directory}/real", 0o700)
    os.symlink("real", f"{directory}/link")
    with Server(f"{directory}/link/s", Echo) as server:
        with pytest.raises(AlreadyRunning):
            Server(f"{directory}/real/s", Echo)
        assert lives(server)
    os.chmod(f"{directory}/real", 0o777)
    with pytest.raises(UnsafeAddress):
        Server(f"{directory}/link/s", Echo)


# ---------------------------------------------------------------------------------------------
# 9: another's newer socket


@pytest.fixture(params=["tmpfs", "disk"])
def place(request):
    """A private directory on each kind of file system: they give inode numbers differently."""
    with tempfile.TemporaryDirectory(dir=a_place(request.param), prefix="ipcpoll-") as path:
        yield path


def test_hazard_09_close_leaves_what_took_its_place(place):
    """An ext4 gives the inode number of a removed file to the next one."""
    path = f"{place}/s"
    for make in (make_file, make_socket, os.mkfifo, make_dangling_link):
        for also_the_lock in (False, True):
            server = Server(path, Echo)
            os.unlink(path)
            make(path)
            if also_the_lock:
                os.unlink(path + ".lock")
                make_file(path + ".lock")
            before = {name: snapshot(f"{place}/{name}") for name in os.listdir(place)}
            server.close()
            if not also_the_lock:
                before.pop("s.lock")  # that is its own
            assert {name: snapshot(f"{place}/{name}") for name in os.listdir(place)} == before
            for name in before:
                os.unlink(f"{place}/{name}")


def test_hazard_09_close_leaves_the_next_server_alone(place):
    """Somebody has removed socket and lock, and the next server is there already."""
    path = f"{place}/s"
    old = Server(path, Echo)
    os.unlink(path)
    os.unlink(path + ".lock")
    with Server(path, Echo) as new:
        assert not old.reachable()
        old.close()
        assert new.reachable()
        assert lives(new)
        with pytest.raises(AlreadyRunning):
            Server(path, Echo)
    assert os.listdir(place) == []


def test_hazard_09_socket_is_removed_under_the_lock_and_before_it_is_closed(place, monkeypatch):
    """A removed file keeps its number while the socket is open; and nobody else is at work."""
    unlink = os.unlink
    seen = []
    server = Server(f"{place}/s", Echo)
    fd = server._listener.fileno()

    def look_and_unlink(name, **named):
        try:
            lockfile.take(server._listener._place.directory, "s")
        except AlreadyRunning:
            seen.append((name, stat.S_ISSOCK(os.fstat(fd).st_mode)))
        unlink(name, **named)

    monkeypatch.setattr(os, "unlink", look_and_unlink)
    server.close()
    assert seen == [("s", True), ("s.lock", True)]


# ---------------------------------------------------------------------------------------------
# 10: SIGKILL


def test_hazard_10_start_after_a_kill_again_and_again(place):
    """Each starts over the dead socket of the one before."""
    path = f"{place}/s"

    def start_and_die():
        Server(path, Echo)
        kill_self()

    before = descriptors()
    for _ in range(100):
        assert in_child(start_and_die) == ""
        assert sorted(os.listdir(place)) == ["s", "s.lock"]
        assert lockfile.owner(path) != os.getpid()
    with Server(path, Echo) as server:
        assert lockfile.owner(path) == os.getpid()
        assert lives(server)
    assert os.listdir(place) == []
    assert descriptors() == before


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
# 12 and 13: long paths, relative ones, a directory that moves


@pytest.fixture
def long_directory(directory):
    """A directory with a path of 200 bytes."""
    path = directory
    while len(path) < 200:
        path = f"{path}/{'x' * min(60, 199 - len(path))}"
        os.mkdir(path, 0o700)
    return path


def test_hazard_12_path_of_any_length(long_directory):
    path = f"{long_directory}/s"
    assert len(path) > 107
    before = descriptors()
    with Server(path, COMMANDS) as server:
        assert server.address == path
        assert sorted(os.listdir(long_directory)) == ["s", "s.lock"]
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(AlreadyRunning):
            Server(path, Echo)
        assert server.reachable()
        for turn in (1, 2):
            client = run_python(
                "import sys, ipcpoll\nfrom harness import Echo\n"
                "print(ipcpoll.send(Echo(5), sys.argv[1]))",
                path,
            )
            assert serve_process(server, client) == "5\n"
            if turn == 1:
                os.unlink(path)
                server.rebind()
                assert server.reachable()
        # Without a lock nobody would ask the socket itself; it is found by the same detour.
        os.unlink(path + ".lock")
        with pytest.raises(AlreadyRunning):
            Server(path, Echo)
    assert os.listdir(long_directory) == []
    assert descriptors() == before


def test_hazard_12_client_of_a_long_path_where_nobody_is(long_directory):
    from ipcpoll import NotRunning, StaleSocket, send

    before = descriptors()
    for path in (f"{long_directory}/s", f"{long_directory}/nowhere/s"):
        with pytest.raises(NotRunning, match="there is no socket at"):
            send(Echo(1), path)
    in_child(lambda: (Server(f"{long_directory}/s", Echo), kill_self()))
    with pytest.raises(StaleSocket):
        send(Echo(1), f"{long_directory}/s")
    assert descriptors() == before
    with Server(f"{long_directory}/s", Echo) as server:  # the dead one is found and replaced
        assert server.reachable()


def test_hazard_12_what_can_not_be_had_says_so(long_directory):
    from ipcpoll import send

    before = descriptors()
    path = f"{long_directory}/{'x' * 100}"
    words = f"a socket's path may have 107 bytes, this has {len(path)}"
    with pytest.raises(OSError, match=words) as caught:
        Server(path, Echo)
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, path)
    with pytest.raises(OSError, match=words):
        send(Echo(1), path)
    with pytest.raises(OSError, match="File name too long") as caught:
        Server(f"{long_directory}/{'x' * 300}", Echo)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert os.listdir(long_directory) == []
    assert descriptors() == before


def test_hazard_12_long_path_without_proc(long_directory, monkeypatch):
    monkeypatch.setattr("ipcpoll._address.directory._PROC", "/nowhere")
    with pytest.raises(OSError, match="a socket's path may have 107 bytes"):
        Server(f"{long_directory}/s", Echo)
    assert os.listdir(long_directory) == []


def test_hazard_12_bytes_count_and_not_letters(directory):
    path = f"{directory}/{'ä' * 45}"
    assert len(path) < 107 < len(os.fsencode(path))
    with Server(path, COMMANDS) as server:
        assert server.reachable()


def test_hazard_13_chdir_changes_nothing(directory, monkeypatch):
    for name in "ab":
        os.mkdir(f"{directory}/{name}", 0o700)
        make_file(f"{directory}/{name}/s.txt")
    make_file(f"{directory}/b/s")
    before = snapshot(f"{directory}/b/s")
    monkeypatch.chdir(f"{directory}/a")
    with Server("./s", COMMANDS) as server, Client("./s") as client:
        monkeypatch.chdir(f"{directory}/b")
        assert server.address == client.address == f"{directory}/a/s"
        assert server.reachable()
        os.unlink(server.address)
        server.rebind()
        assert lives(server)
        assert sorted(os.listdir(f"{directory}/a")) == ["s", "s.lock", "s.txt"]
    assert os.listdir(f"{directory}/a") == ["s.txt"]
    assert snapshot(f"{directory}/b/s") == before


def test_hazard_13_directory_that_is_renamed_while_it_runs(directory):
    """What was made is removed where it is now, not where it was."""
    os.mkdir(f"{directory}/a", 0o700)
    with Server(f"{directory}/a/s", COMMANDS) as server:
        os.rename(f"{directory}/a", f"{directory}/b")
        assert not server.reachable()
        with pytest.raises(FileNotFoundError):
            server.rebind()
        os.mkdir(f"{directory}/a", 0o700)
        make_file(f"{directory}/a/s")
        before = snapshot(f"{directory}/a/s")
        with pytest.raises(FileExistsError):
            server.rebind()
    assert os.listdir(f"{directory}/b") == []
    assert snapshot(f"{directory}/a/s") == before


# ---------------------------------------------------------------------------------------------
# 14: standard input is closed

LOW = """
import os, socket, sys, threading, time
closed = [int(number) for number in sys.argv[2].split(",")]
report = open(sys.argv[3], "w")
for number in closed:
    os.close(number)

def taken(when):
    for number in closed:
        try:
            os.fstat(number)
        except OSError:
            continue
        what = os.readlink(f"/proc/self/fd/{number}")
        report.write(f"{when}: {number} is {what}\\n")

socket.setdefaulttimeout(60)  # whoever moves a descriptor must not lose that it never waits
import ipcpoll
from harness import Echo, Host, serve_until
taken("import")
server = ipcpoll.Server(sys.argv[1], Echo)
taken("Server")
server._hub.deadlines.add(time.monotonic() + 60, lambda: None)
taken("timer")
client = ipcpoll.Client(sys.argv[1])
got = []

def ask():
    got.append(client.call(Echo(1)))
    done.wait()
    got.append(client.call(Echo(2)))

done = threading.Event()
thread = threading.Thread(target=ask)
thread.start()
serve_until(server, lambda: got)
taken("a client is connected")
assert all(c._socket.gettimeout() == 0 for c in server._clients.connections.values())
os.unlink(sys.argv[1])
server.rebind()
taken("rebind")
done.set()
serve_until(server, lambda: len(got) == 2)
thread.join()
client.close()
server.close()
taken("close")
report.write(f"{got}\\n")
report.close()
"""


@pytest.mark.parametrize("closed", ["0", "0,1,2", "1,2"])
@pytest.mark.parametrize("length", ["short", "long"])
def test_hazard_14_no_descriptor_is_that_of_standard_input(directory, request, closed, length):
    place = request.getfixturevalue("long_directory") if length == "long" else directory
    report = f"{directory}/report"
    finish(run_python(LOW, f"{place}/s", closed, report))
    assert Path(report).read_text() == "[1, 2]\n"


def test_hazard_14_socket_that_was_passed_as_standard_input(directory):
    """As inetd does; it is moved, and standard input is free."""
    source = """
import os, socket, sys
import ipcpoll
from harness import Echo
server = ipcpoll.Server.from_socket(socket.socket(fileno=0), Echo)
try:
    os.fstat(0)
except OSError:
    print("moved", server.reachable())
server.close()
"""
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        words = subprocess.run(
            [sys.executable, "-W", "error", "-c", source],
            stdin=listener,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"},
        )
    assert (words.stdout, words.stderr) == ("moved True\n", "")


# ---------------------------------------------------------------------------------------------
# 15: ends

EXIT = """
import gc, os, sys, threading, warnings
import ipcpoll
from harness import COMMANDS, Host, Peer, serve_until
path, how = sys.argv[1:]

def run(server, do):
    with Peer(server) as peer:
        peer.call(1, "Do", value=1)
        serve_until(server, peer.received, Host(do=do))

def fall():
    raise ZeroDivisionError

server = ipcpoll.Server(path, COMMANDS)
if how == "normal":
    with server:
        pass
elif how == "exception":
    with server:
        fall()
elif how == "os._exit":
    with server:
        os._exit(3)
elif how == "sys.exit in a handler":
    with server:
        run(server, lambda: sys.exit(4))
elif how == "os._exit in a handler":
    with server:
        run(server, lambda: os._exit(5))
elif how == "sys.exit in a handler, not closed":
    run(server, lambda: sys.exit(6))
elif how == "not closed":
    pass
elif how == "deleted":
    del server
elif how == "close in a handler":
    run(server, server.close)
elif how == "twice":
    server.close()
    server.close()
elif how == "in an atexit handler":
    import atexit
    atexit.register(server.close)
elif how == "in a thread that outlives the main one":
    thread = threading.Thread(target=lambda: (threading.main_thread().join(), server.close()))
    thread.start()
"""
TIDY: set[str] = set()
LEFT = {"s", "s.lock"}


@pytest.mark.parametrize(
    ("how", "code", "left", "warns"),
    [
        ("normal", 0, TIDY, False),
        ("exception", 1, TIDY, False),
        ("os._exit", 3, LEFT, False),
        ("sys.exit in a handler", 4, TIDY, False),
        ("os._exit in a handler", 5, LEFT, False),
        ("sys.exit in a handler, not closed", 6, LEFT, True),
        ("not closed", 0, LEFT, True),
        ("deleted", 0, LEFT, True),
        ("close in a handler", 0, TIDY, False),
        ("twice", 0, TIDY, False),
        ("in an atexit handler", 0, TIDY, False),
        ("in a thread that outlives the main one", 0, TIDY, False),
    ],
)
def test_hazard_15_who_removes_what_at_the_end(directory, how, code, left, warns):
    path = f"{directory}/s"
    process = run_python(EXIT, path, how)
    _, words = process.communicate(timeout=20)
    assert process.returncode == code, words
    assert set(os.listdir(directory)) == left
    assert ("ResourceWarning: unclosed <ipcpoll.Server" in words) == warns
    with Server(path, Echo) as server:
        assert lives(server)


def test_hazard_15_deleted_server_frees_its_address_and_removes_nothing(directory):
    path = f"{directory}/s"
    before = descriptors()
    server = Server(path, Echo)
    with pytest.warns(ResourceWarning, match=r"unclosed <ipcpoll\.Server"):
        del server
    assert set(os.listdir(directory)) == LEFT
    assert descriptors() == before
    Server(path, Echo).close()


def test_hazard_15_child_of_a_fork_removes_nothing_and_frees_nothing(server):
    before = snapshot(server.address), snapshot(server.address + ".lock")

    def close_and_try():
        words = f"{server.closed} {server.fileno()}"
        server.close()
        server.__exit__()
        server.__del__()
        try:
            Server(server.address, Echo)
        except AlreadyRunning as error:
            return f"{words} {error.pid}"

    assert in_child(close_and_try) == f"True -1 {os.getpid()}"
    assert (snapshot(server.address), snapshot(server.address + ".lock")) == before
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)
    assert lives(server)


def test_hazard_15_child_of_a_fork_that_python_did_not_see(server, monkeypatch):
    """As by a C library: no hook has run, and the pid is another one."""
    before = snapshot(server.address), snapshot(server.address + ".lock")
    copy = os.dup(server._listener._place.lock._fd)  # what the parent has
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        server.close()
    assert server.closed
    assert (snapshot(server.address), snapshot(server.address + ".lock")) == before
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)
    os.close(copy)
    Server(server.address, Echo).close()


def test_hazard_15_listener_alone_looks_whose_it_is(server, monkeypatch):
    """The deepest of the three guards: nothing below `Server` removes another process's files."""
    listener = server._listener
    parent = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: parent + 1)
        listener.vacate()
    assert server.reachable()
    assert lockfile.owner(server.address) == parent


def test_hazard_15_child_of_multiprocessing_that_ends(server):
    """It ends by itself, with all of Python's tidying up."""
    before = snapshot(server.address), snapshot(server.address + ".lock")
    process = multiprocessing.get_context("fork").Process(target=gc.collect)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (snapshot(server.address), snapshot(server.address + ".lock")) == before
    with pytest.raises(AlreadyRunning):
        Server(server.address, Echo)
    assert lives(server)


def test_hazard_15_child_that_outlives_its_parent_does_not_hold_the_address(directory):
    """The parent is killed; its child has let go of socket and lock, and lives on."""
    path = f"{directory}/s"
    source = """
import os, signal, sys
import ipcpoll
from harness import Echo
server = ipcpoll.Server(sys.argv[1], Echo)
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
print("child", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"},
    )
    with process:
        assert process.stdout.readline() == "child\n"
        assert process.wait() == -signal.SIGKILL
        with Server(path, Echo) as server:
            assert lives(server)
        process.stdin.close()
        assert process.stdout.read() == "", "the child has ended"


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
