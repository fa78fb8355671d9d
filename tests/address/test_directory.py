"""The directory of a socket: whose it may be, links to it, long paths, one that moves.

The numbers of the hazards are those of the table in docs/security.md.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import pytest
from addresses import (
    ROOT_USER,
    SOMEBODY,
    START,
    descriptors,
    in_child,
    kill_self,
    lives,
    make_dangling_link,
    make_file,
    run_as,
    snapshot,
    users,
)
from harness import (
    COMMANDS,
    Echo,
    finish,
    run_python,
    serve_process,
)

from ipcpoll import (
    AlreadyRunning,
    Client,
    Server,
    UnsafeAddress,
)

pytestmark = pytest.mark.once


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
# 12 and 13: long paths, relative ones, a directory that moves


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
