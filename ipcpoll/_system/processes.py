"""What proc(5) says of a process: when it began, and how it was started. For people to read.

What is promised:

* Nothing here raises, and nothing blocks. What can't be known is None, or an empty text: the
  process has ended, belongs to another pid namespace, or there is no proc(5).
* `command` gives the interpreter and the script, or ``-m NAME``, and never another argument: they
  may hold a secret.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Final

from .peer import read_proc, status_of

_PYTHON: Final = re.compile(r"(python|pypy)[0-9.]*t?")
_TAKE_A_VALUE: Final = "WX"
"""The options of the interpreter that have a value, which may be the next argument."""


def began(pid: int) -> float | None:
    """Return when a process began, in Unix time, to a tenth of a second."""
    try:
        since_boot = int(status_of(pid)[19]) / os.sysconf("SC_CLK_TCK")
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return round(booted + since_boot, 1)
    except (AttributeError, IndexError, ValueError):
        return None


def command(pid: int) -> str:
    """Return how a process was started, without the arguments of its own."""
    whole = read_proc(pid, "cmdline")
    words = [os.fsdecode(word) for word in whole.removesuffix(b"\0").split(b"\0")]
    return without_arguments(words)


def without_arguments(words: Sequence[str]) -> str:
    """Return the program of a command line, and of an interpreter what it runs."""
    program, *arguments = words
    if not _PYTHON.fullmatch(os.path.basename(program)):
        return program
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-") or word == "-":
            return f"{program} {word}"
        if word.startswith("--"):  # such as --check-hash-based-pycs default
            next(rest, None)
            continue
        for index, letter in enumerate(word[1:], start=2):
            if letter == "c":
                return f"{program} -c"
            if letter == "m":
                return f"{program} -m {word[index:] or next(rest, '')}".rstrip()
            if letter in _TAKE_A_VALUE:
                if not word[index:]:
                    next(rest, None)
                break
    return program
