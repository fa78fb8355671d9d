"""How the command ends: one code and one sentence for each exception."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import click
import pytest
from operating import ROOT, Ran

import ipcpoll
from ipcpoll.cli.exits import Ended, Exit, Usage, run, verdict
from ipcpoll.cli.unfit import Unfit


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ipcpoll.NotRunning("no"), 3, "no; start it; `ipcpoll ls` shows what runs"),
        (ipcpoll.StaleSocket("no"), 4, "no; start the program again, it clears the socket away"),
        (ipcpoll.NotPolled("no"), 5, "no; it may be at work: try again, or give it longer with"),
        (ipcpoll.NotPolled("pid 7 is stopped (by"), 5, "; let it go on: kill -CONT 7"),
        (ipcpoll.NotAnswered("no"), 6, "no; see whether it was done before you repeat it, or"),
        (ipcpoll.UntrustedPeer("no"), 7, "no; ask as the user whose program it is; root can: --us"),
        (ipcpoll.UnsafeAddress("no"), 7, "no; chmod or chown it, or use another address"),
        (ipcpoll.PeerGone("no"), 9, "no; see whether it was done before you repeat it"),
        (ipcpoll.PeerGone("no", True), 9, "no; repeat it when the program is back"),
        (ipcpoll.FrameTooLarge("no"), 2, "no; send less at once"),
        (ipcpoll.UnsafeDependency("no"), 1, "no"),
        (ipcpoll.CommandError("queue-full", "no room"), 1, "queue-full: no room"),
        (ipcpoll.CommandError("refused", "no"), 1, "refused: no"),
        (ipcpoll.Busy("no room"), 1, "busy: no room"),
        (ipcpoll.Cancelled("no"), 1, "cancelled: no"),
        (ipcpoll.InternalError("no"), 1, "internal: no; the program's log has the traceback"),
        (ipcpoll.InvalidArguments("no"), 2, "invalid-arguments: no"),
        (ipcpoll.UnknownCommand("no"), 2, "unknown-command: no"),
        (ipcpoll.CommandError("unknown-variable", "no"), 2, "unknown-variable: no"),
        (ipcpoll.CommandError("read-only", "no"), 2, "read-only: no"),
        (ipcpoll.CommandError("conflict", "no"), 8, "conflict: no"),
        (ipcpoll.ShuttingDown("no"), 9, "shutting-down: no"),
        (Unfit("must be an integer", "a"), 2, "a must be an integer; nothing was sent"),
        (Usage("no"), 2, "no"),
        (Ended(Exit.CONFLICT, "no"), 8, "no"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (click.UsageError("No such thing."), 2, "No such thing; `ipcpoll --help` says how"),
        (click.FileError("f", "no"), 2, "Could not open file 'f': no"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_verdict(error: BaseException, code: int, sentence: str) -> None:
    ended = verdict(error)
    assert ended is not None
    assert ended.code == code
    assert sentence in ended.sentence


def test_every_public_exception_has_a_verdict() -> None:
    """But for those that mean a fault of the command itself."""
    errors = {
        cls
        for name in ipcpoll.__all__
        if isinstance(cls := getattr(ipcpoll, name), type) and issubclass(cls, ipcpoll.IpcError)
    }
    declared = type("QueueFull", (ipcpoll.DeclaredError,), {"CODE": "queue-full"})
    made: dict[type, Any] = {
        ipcpoll.CommandError: ipcpoll.CommandError("code", "no"),
        ipcpoll.DeclaredError: declared("no"),
    }
    without = {cls for cls in errors if verdict(made.get(cls) or cls("no")) is None}
    assert without == {ipcpoll.IpcError, ipcpoll.UsageError}


@pytest.mark.parametrize("error", [ValueError("x"), ipcpoll.UsageError("x"), SystemExit(3)])
def test_a_fault_of_the_command_itself_keeps_its_traceback(error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert verdict(error) is None
    with pytest.raises(type(error)):
        run(fail)


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> None:
        raise error

    assert run(lambda: fail(ipcpoll.CommandError("queue-full", "no \x1b[31m room"))) == 1
    assert capsys.readouterr().err == "queue-full: no \\x1b[31m room\n"
    assert run(lambda: fail(ipcpoll.NotRunning("x" * 10_000))) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ipcpoll: xxx")
    assert len(line) < 4200
    assert run(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""
    assert run(lambda: fail(Ended(Exit.REFUSED))) == 1
    assert capsys.readouterr().err == ""
    assert run(lambda: 7) == 7
    assert run(lambda: "done") == 0


# ---------------------------------------------------------------------------------------------
# Pipes and the end of Python

MUCH = """
import sys
from ipcpoll.cli import exits
def main():
    print("first")
    sys.stdout.flush()
    sys.stdin.readline()
    {then}
sys.exit(exits.run(main))
"""


def start(then: str, stdout: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", MUCH.format(then=then)],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def ended(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate("\n", timeout=60)
    return Ran(process.returncode, out, err)


@pytest.mark.parametrize("then", ["print('x' * 1000000)", "print('x')"])
def test_a_closed_pipe_ends_it_silently(then: str) -> None:
    """While it writes, and at Python's own end, which flushes what is left."""
    reading, writing = os.pipe()
    process = start(then, stdout=writing)
    os.close(writing)
    with open(reading, "rb", buffering=0) as pipe:
        assert pipe.readline() == b"first\n"  # in one write or in two
    assert ended(process)[::2] == (0, "")


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "wb") as full:
        process = start("", stdout=full)
        code, _, err = ended(process)
    assert (code, err) == (1, "ipcpoll: [Errno 28] No space left on device\n")


def test_closed_stdout_is_no_fault() -> None:
    program = MUCH.format(then="print('x')")
    command = f'exec "{sys.executable}" -c "$PROGRAM" >&-'
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PROGRAM": program.replace("sys.stdout.flush()", ""),
    }
    done = subprocess.run(
        ["sh", "-c", command],
        input="\n",
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
