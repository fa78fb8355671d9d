"""Many processes start, stop and are killed on one path: is there ever more than one owner?

Run by hand::

    python tests/support/race.py --seconds 20 --processes 6 --directory /dev/shm/race

and briefly by tests/address/test_lockfile.py. It prints what it counted as JSON, and
ends with 1 if there was a violation.

The *workers* make a server on the path, over and over. One that has it sets the *mark*, is polled
for a moment, takes the mark away, and then ends in one of many ways: close, SIGKILL, being
forgotten, each also with a forked child that lives on; or it removes its own socket and rebinds.
The *parent* kills workers at any moment, and starts others. The *checker* is a client, and puts
files of its own at the socket's and the lock's place when these are free.

The mark is a symbolic link: making one is a single step, fails if there is one, and it says who
made it. Whoever has set it is the owner from before until after the mark is there, so two marks at
a time are two owners, and nothing that is legal looks like it. A killed owner can't take its mark
away after its death, when the next owner may be there already; so it is taken away before: a worker
that kills itself does that itself, and one that the parent kills is first stopped (SIGSTOP), when
it still owns what it owns.

Violations:

* two owners;
* an owner whose path does not lead to it: its `reachable` says so, or a client gets no answer or
  another server's, while the same mark stood before and after the call;
* a file of somebody else's that was changed or removed;
* an error that is no legal one, a descriptor that is left open, and an address that can't be had
  at the end, when nobody is there any more, or is not left empty then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

sys.path.insert(0, os.path.abspath(f"{__file__}/../../.."))

import ipcpoll
from ipcpoll import AlreadyRunning, Server, UnsafeAddress

COUNTED = (
    "starts",
    "already_running",
    "refused",  # a file of the checker's stood in the way
    "closed",
    "killed_itself",
    "forgotten",
    "forked",
    "rebound",
    "not_rebound",  # somebody else was faster
    "calls",
    "answers",
    "not_running",
    "stale",
    "shutting_down",
    "gone",
    "timed_out",
    "foreign_files",
)
"""What each process counts, in its row of the shared memory."""

FOREIGN = b"precious\n"
STEPS = {"open", "fcntl.flock", "os.chmod", "os.remove", "socket.bind", "socket.connect"}
"""What Python tells to audit hooks of a server's start and end, each before it is done."""


@dataclass
class Who:
    """Answers which server this is."""

    def process(self, ctx: str) -> str:
        return ctx


class Race:
    """What all processes know."""

    def __init__(self, directory: str, processes: int) -> None:
        self.path = os.path.join(directory, "s")
        self.lock = self.path + ".lock"
        self.own = os.path.join(directory, "race")  # what the race itself needs
        self.mark = os.path.join(self.own, "owner")
        os.mkdir(self.own)
        self.memory = memoryview(mmap.mmap(-1, 8 * (1 + (processes + 2) * len(COUNTED)))).cast("Q")
        self.row = 0
        self.told, self._tell = os.pipe()
        os.set_blocking(self.told, False)

    def count(self, what: str) -> None:
        """Count in this process's row."""
        self.memory[1 + self.row * len(COUNTED) + COUNTED.index(what)] += 1

    def counts(self) -> dict[str, int]:
        """Return the sums of all rows."""
        return {name: sum(self.memory[1 + i :: len(COUNTED)]) for i, name in enumerate(COUNTED)}

    @property
    def over(self) -> bool:
        """Whether everybody should end."""
        return bool(self.memory[0])

    def end(self) -> None:
        """Let everybody end."""
        self.memory[0] = 1

    def violation(self, text: str) -> None:
        """Tell the parent. What is shorter than PIPE_BUF is written in one piece."""
        os.write(self._tell, (text.replace("\n", " | ")[:2000] + "\n").encode())

    def owner(self) -> str | None:
        """Return whose mark is there."""
        try:
            return os.readlink(self.mark)
        except FileNotFoundError:
            return None

    def set_mark(self, who: str) -> bool:
        """Become the owner; return False, and tell, if there is one."""
        try:
            os.symlink(who, self.mark)
        except FileExistsError:
            self.violation(f"two owners: {who} beside {self.owner()}")
            return False
        return True


def moment(most: float) -> None:
    """Give way for a random time."""
    select.select([], [], [], random.uniform(0, most))


def forked(run: Callable[[], None]) -> int:
    """Run something in a child, and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        random.seed()
        run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


# ---------------------------------------------------------------------------------------------
# The workers


def work(race: Race) -> None:
    """Start a server and end it, until the race is over or this process is killed."""
    warnings.simplefilter("ignore", ResourceWarning)  # some servers are forgotten
    descriptors = len(os.listdir("/proc/self/fd"))
    sys.addaudithook(hesitate)
    turn = 0
    while not race.over:
        turn += 1
        who = f"{os.getpid()}-{turn}"
        try:
            attempt(race, who)
        except Exception:
            race.violation(f"{who}: {traceback.format_exc()}")
        if turn % 50 == 0 and len(os.listdir("/proc/self/fd")) > descriptors:
            race.violation(f"{who} has descriptors left over")
            return


def hesitate(event: str, _: object) -> None:
    """Pause before a step, at times: a fast worker rarely meets another."""
    if event in STEPS and random.random() < 0.03:
        moment(0.003)


def attempt(race: Race, who: str) -> None:
    """Try to become the owner, and be one for a moment."""
    try:
        server = Server(race.path, Who)
    except AlreadyRunning:
        race.count("already_running")
        moment(0.0002)
        return
    except (FileExistsError, UnsafeAddress) as error:
        if "replaced" in str(error):  # the checker never replaces anything
            raise
        race.count("refused")
        return
    race.count("starts")
    if not race.set_mark(who):
        server.close()
        return
    serve(race, server, who)
    random.choices(list(ENDS), weights=list(ENDS.values()))[0](race, server, who)


def serve(race: Race, server: Server[str], who: str) -> None:
    """Be polled for a moment, as the owner."""
    for _ in range(random.choice((0, 0, 1, 2, 4))):
        if not server.reachable():
            race.violation(f"{who} owns the path, which does not lead to it")
        if select.select([server], [], [], random.uniform(0, 0.001))[0]:
            server.poll(who)
    if race.owner() != who:
        race.violation(f"{who} was the owner, and the mark says {race.owner()}")
    if not server.reachable():
        race.violation(f"{who} owned the path, which does not lead to it")


def close(race: Race, server: Server[str], _: str) -> None:
    """Close, as every server should."""
    os.unlink(race.mark)
    race.count("closed")
    server.close()
    server.close()


def be_killed(race: Race, _: Server[str], __: str) -> None:
    """Leave a dead socket and its lock."""
    os.unlink(race.mark)
    race.count("killed_itself")
    os.kill(os.getpid(), signal.SIGKILL)


def be_forgotten(race: Race, server: Server[str], _: str) -> None:
    """Leave the same in a process that lives on."""
    os.unlink(race.mark)
    race.count("forgotten")
    server.__del__()


def fork_and_close(race: Race, server: Server[str], who: str) -> None:
    """Let a child outlive the server; it must neither hold the address nor remove anything."""
    child = fork_child(race, server)
    serve(race, server, who)
    close(race, server, who)
    os.waitpid(child, 0)


def fork_and_be_killed(race: Race, server: Server[str], who: str) -> None:
    """Let a child outlive this process."""
    fork_child(race, server)
    be_killed(race, server, who)


def fork_child(race: Race, server: Server[str]) -> int:
    """Start a child that lives for a moment, and closes what is its parent's."""
    race.count("forked")

    def live() -> None:
        moment(0.002)
        server.close()
        moment(0.002)

    return forked(live)


def rebind(race: Race, server: Server[str], who: str) -> None:
    """Lose the socket, or socket and lock; make it anew, unless somebody else is faster."""
    os.unlink(race.mark)
    os.unlink(race.path)
    if random.random() < 0.5:
        os.unlink(race.lock)
    if random.random() < 0.5:
        moment(0.001)
    try:
        server.rebind()
    except (AlreadyRunning, FileExistsError, UnsafeAddress):
        race.count("not_rebound")
        server.close()
        return
    race.count("rebound")
    again = who + "-again"  # it was no owner in between, so it is another one now
    if race.set_mark(again):
        serve(race, server, again)
        close(race, server, again)
    else:
        server.close()


ENDS: dict[Callable[[Race, Server[str], str], None], int] = {
    close: 50,
    be_killed: 15,
    be_forgotten: 10,
    fork_and_close: 5,
    fork_and_be_killed: 5,
    rebind: 15,
}


# ---------------------------------------------------------------------------------------------
# The checker


def check(race: Race) -> None:
    """Call whoever is there, and put files in the way, until the race is over."""
    while not race.over:
        try:
            if random.random() < 0.1:
                put_in_the_way(race, random.choice((race.path, race.lock)))
            else:
                ask(race)
        except Exception:
            race.violation(f"the checker: {traceback.format_exc()}")


def ask(race: Race) -> None:
    """Call the present owner. If it is one before and after, it is the one that answers."""
    before = race.owner()
    race.count("calls")
    outcome = "answers"
    answer = None
    try:
        answer = ipcpoll.send(Who(), race.path, timeout=5)
    except ipcpoll.StaleSocket:
        outcome = "stale"
    except ipcpoll.NotRunning:
        outcome = "not_running"
    except ipcpoll.ShuttingDown:
        outcome = "shutting_down"
    except ipcpoll.PeerGone:
        outcome = "gone"
    except TimeoutError:
        outcome = "timed_out"
    race.count(outcome)
    if before is None:
        os.sched_yield()
    elif answer != before and race.owner() == before:
        race.violation(f"{before} is the owner, and a client sees: {outcome} {answer}")


def put_in_the_way(race: Race, place: str) -> None:
    """Put a file where nothing is; it must stay what it is."""
    mine = os.path.join(race.own, "mine")
    with open(mine, "wb") as file:
        file.write(FOREIGN)
    os.chmod(mine, 0o640)
    try:
        os.link(mine, place)
    except FileExistsError:
        return
    finally:
        os.unlink(mine)
    race.count("foreign_files")
    with open(place, "rb") as file:
        before = os.fstat(file.fileno())
        moment(0.002)
        after = os.lstat(place)
        same = os.path.samestat(before, after) and before.st_mode == after.st_mode
        if not same or file.read() != FOREIGN:
            race.violation(f"a file of somebody else's at {place} was changed")
    os.unlink(place)


# ---------------------------------------------------------------------------------------------
# The parent


def run(directory: str, seconds: float, processes: int) -> dict[str, Any]:
    """Let the race take place in an empty directory, and return what was counted and seen."""
    race = Race(directory, processes)
    foreign = race.path + ".txt"
    with open(foreign, "wb") as file:
        file.write(FOREIGN)
    before = os.stat(foreign)
    rows: dict[int, int] = {}
    killed = 0
    violations: list[str] = []

    def start(row: int) -> None:
        race.row = row
        rows[forked(lambda: (work if row else check)(race))] = row

    def reap(pid: int, status: int) -> None:
        row = rows.pop(pid)
        expected = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if status and not expected:
            violations.append(f"process {pid} ended with status {status}")
        if not race.over:
            start(row)

    for row in range(processes + 1):
        start(row)
    deadline = time.monotonic() + seconds
    while rows:
        if time.monotonic() >= deadline:
            race.end()
        if select.select([race.told], [], [], random.uniform(0, 0.02))[0]:
            violations += os.read(race.told, 1 << 20).decode().splitlines()
        while rows and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            reap(*ended)
        workers = [pid for pid, row in rows.items() if row]
        if workers and not race.over and random.random() < 0.3:
            victim = random.choice(workers)
            reap(victim, kill(race, victim))
            killed += 1
        if time.monotonic() >= deadline + 30:
            violations.append("somebody hangs")
            for pid in rows:
                os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(BlockingIOError):
        violations += os.read(race.told, 1 << 20).decode().splitlines()

    # Whatever the dead left, the next one gets the address, and tidies up.
    Server(race.path, Who).close()
    left = set(os.listdir(directory)) - {os.path.basename(foreign), os.path.basename(race.own)}
    if left or os.listdir(race.own):
        violations.append(f"left behind: {left} {os.listdir(race.own)}")
    after = os.stat(foreign)
    with open(foreign, "rb") as file:
        if not os.path.samestat(before, after) or file.read() != FOREIGN:
            violations.append("the file beside the socket was changed")
    return {**race.counts(), "killed": killed, "violations": violations}


def kill(race: Race, pid: int) -> int:
    """Kill a worker, whatever it is doing, and return its status."""
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        return status  # it was faster
    # It is stopped and owns what it owns, so the mark is taken away in its name.
    if (race.owner() or "").startswith(f"{pid}-"):
        os.unlink(race.mark)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description="Let many processes race for one path.")
    parser.add_argument("--directory", required=True, help="an empty one; made if missing")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--user", type=int, help="the uid to become, after making the directory")
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)
    if arguments.user not in (None, os.geteuid()):
        os.chown(arguments.directory, arguments.user, arguments.user)
        os.setgroups([])
        os.setgid(arguments.user)
        os.setuid(arguments.user)
    result = run(arguments.directory, arguments.seconds, arguments.processes)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["violations"]))


if __name__ == "__main__":
    main()
