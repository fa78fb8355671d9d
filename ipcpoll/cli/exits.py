"""How the command ends: its exit codes, and one sentence that says what to do.

What is promised:

* Every exception that a verb may raise has its code here, in one place, and nowhere else.
* The sentence goes to stderr, on one line, with nothing in it that could steer a terminal.
* A closed pipe ends the command silently, also when Python flushes at its end. Ctrl-C is 130.
* A fault of the command itself keeps its traceback.

Neither click nor rich is imported: `dial` needs none of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple

import ipcpoll

from .text import MOST, escaped, shown
from .unfit import Unfit


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    REFUSED = 1
    """The command said no; or the question was answered with no."""
    USAGE = 2
    """Wrong words, an unknown name, an invalid value."""
    NOT_RUNNING = 3
    STALE = 4
    """A socket without a program."""
    NOT_READING = 5
    NOT_ANSWERING = 6
    NOT_ALLOWED = 7
    """Another user's, or an unsafe place."""
    CONFLICT = 8
    """Somebody else has changed it meanwhile."""
    WENT_AWAY = 9
    UNREACHABLE = 10
    """The other machine can't be reached, or can't serve us."""
    INTERRUPTED = 130


class Ended(Exception):
    """A verb ends with this code, and says this sentence; "": nothing is left to say."""

    def __init__(self, code: Exit, sentence: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class Usage(Ended):
    """What was typed can't be done: exit 2."""

    def __init__(self, sentence: str) -> None:
        super().__init__(Exit.USAGE, sentence)


class Verdict(NamedTuple):
    """The code of an exception, and the sentence for it."""

    code: Exit
    sentence: str


_ADVICE: Final[dict[type[Exception], tuple[Exit, str]]] = {
    ipcpoll.StaleSocket: (Exit.STALE, "start the program again, it clears the socket away"),
    ipcpoll.NotRunning: (Exit.NOT_RUNNING, "start it; `ipcpoll ls` shows what runs"),
    ipcpoll.NotPolled: (
        Exit.NOT_READING,
        "it may be at work: try again, or give it longer with --timeout",
    ),
    ipcpoll.NotAnswered: (
        Exit.NOT_ANSWERING,
        "see whether it was done before you repeat it, or give it longer with --timeout",
    ),
    ipcpoll.UntrustedPeer: (
        Exit.NOT_ALLOWED,
        "ask as the user whose program it is; root can: --user NAME",
    ),
    ipcpoll.UnsafeAddress: (Exit.NOT_ALLOWED, "chmod or chown it, or use another address"),
    ipcpoll.PeerGone: (Exit.WENT_AWAY, "see whether it was done before you repeat it"),
    ipcpoll.FrameTooLarge: (Exit.USAGE, "send less at once"),
    ipcpoll.UnsafeDependency: (Exit.REFUSED, ""),
}
"""By class, a derived one before its base."""

_STOPPED: Final = re.compile(r"pid (\d+) is stopped")
"""What ipcpoll says of a process that a signal or a debugger has stopped."""

_CODES: Final = {
    "conflict": Exit.CONFLICT,
    "invalid-arguments": Exit.USAGE,
    "read-only": Exit.USAGE,
    "shutting-down": Exit.WENT_AWAY,
}
"""Of errors that a program answered; the others are 1, and those that begin as below are 2."""

_UNKNOWN: Final = "unknown-"


def verdict(error: BaseException) -> Verdict | None:
    """Return how the command ends for an exception; None: it is a fault of the command itself."""
    match error:
        case Ended():
            return Verdict(error.code, error.sentence)
        case KeyboardInterrupt():
            return Verdict(Exit.INTERRUPTED, "")
        case ipcpoll.CommandError():
            return _of_an_answer(error)
        case ipcpoll.NotPolled() if stopped := _STOPPED.search(str(error)):
            return Verdict(Exit.NOT_READING, f"{error}; {go_on(stopped[1])}")
        case ipcpoll.PeerGone(unread=True):
            return Verdict(Exit.WENT_AWAY, f"{error}; repeat it when the program is back")
        case Unfit():
            return Verdict(Exit.USAGE, f"{error}; nothing was sent")
        case _:
            pass
    for kind, (code, advice) in _ADVICE.items():
        if isinstance(error, kind):
            return Verdict(code, f"{error}; {advice}" if advice else str(error))
    if isinstance(error, OSError):
        return Verdict(Exit.REFUSED, str(error))
    return _of_click(error)


def go_on(pid: object) -> str:
    """Return what to do about a process that is stopped."""
    return f"let it go on: kill -CONT {pid}"


def _of_an_answer(error: ipcpoll.CommandError) -> Verdict:
    code = _CODES.get(error.code, Exit.REFUSED)
    if error.code.startswith(_UNKNOWN):
        code = Exit.USAGE
    sentence = f"{error.code}: {error.message}"
    if isinstance(error, ipcpoll.InternalError):
        sentence += "; the program's log has the traceback"
    return Verdict(code, sentence)


def _of_click(error: BaseException) -> Verdict | None:
    if "click" not in sys.modules:
        return None
    import click  # noqa: PLC0415

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return Verdict(Exit.USAGE, error.ctx.get_help())
    if isinstance(error, click.UsageError):
        words = error.format_message().removesuffix(".")
        path = "ipcpoll" if error.ctx is None else error.ctx.command_path
        return Verdict(Exit.USAGE, f"{words}; `{path} --help` says how")
    if isinstance(error, click.ClickException):
        return Verdict(Exit.USAGE, error.format_message())
    if isinstance(error, click.Abort):  # Ctrl-C, or the end of the input, at a question
        return Verdict(Exit.INTERRUPTED, "")
    return None


def run(main: Callable[[], object]) -> int:
    """Call `main`, and return the exit code; what is to be said was said then.

    `main` returns an exit code, or something else for 0.
    """
    try:
        code = main()
        _flush()
        return code if isinstance(code, int) else Exit.DONE
    except BrokenPipeError:
        send_nowhere(sys.stdout.fileno())
        return Exit.DONE
    except BaseException as error:
        ended = verdict(error)
        if ended is None:
            raise
        with contextlib.suppress(OSError):
            _flush()
        say(ended.sentence, is_answer=isinstance(error, ipcpoll.CommandError))
        return ended.code
    finally:
        _forget_what_cant_be_written()


def say(sentence: str, *, is_answer: bool = False) -> None:
    """Say a sentence on stderr; of an answer the program's code comes first, and no name of ours.

    Help, which has many lines, is said as it is.
    """
    if not sentence:
        return
    if "\n" in sentence:
        line = escaped(sentence, lines=True)
    else:
        line = shown(sentence, 4 * MOST)
        line = line if is_answer else f"ipcpoll: {line}"
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        print(line, file=sys.stderr, flush=True)


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:  # None: it was closed from the beginning
        sys.stdout.flush()


def send_nowhere(fd: int) -> None:
    """End what a descriptor led to, and keep its number: what is still written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)


def _forget_what_cant_be_written() -> None:
    """Flush now: what fails at Python's end would be said by Python, with exit code 120."""
    try:
        _flush()
    except OSError:
        send_nowhere(sys.stdout.fileno())
