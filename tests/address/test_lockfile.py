"""The lock that says whose an address is: one server for each, and nothing else is touched.

The numbers of the hazards are those of the table in docs/security.md. As root, what depends on the
user is tested a second time by a process of another user.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from addresses import (
    ROOT_USER,
    SOMEBODY,
    START,
    a_place,
    descriptors,
    lives,
    make_dangling_link,
    make_file,
    make_socket,
    needs_root,
    run_as,
    snapshot,
    users,
)
from harness import (
    ROOT,
    Echo,
    finish,
)

from ipcpoll import (
    AlreadyRunning,
    Server,
    UnsafeAddress,
)

pytestmark = pytest.mark.once


# ---------------------------------------------------------------------------------------------
# 1: something else stands there


def make_numbers(path):
    """Nearly what a lock holds."""
    Path(path).write_text("1234\nprecious")


def make_long_number(path):
    Path(path).write_text("12345678901")


def make_link(path):
    make_file(path + ".target")
    os.symlink(path + ".target", path)


def make_hard_link(path):
    Path(path + ".target").write_text("")  # it could be a lock, but for its other name
    os.link(path + ".target", path)


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


# ---------------------------------------------------------------------------------------------
# 3: two at once


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
