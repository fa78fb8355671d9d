"""The command `ipcpoll`, and ``python -m ipcpoll``: where it begins.

`dial` needs neither click nor rich, and imports none; for all else they must be there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

_HAVE_A_VALUE: Final = ("--timeout", "--user")


def main() -> int:
    """Run the command with the arguments of this process, and return its exit code."""
    try:
        return _run(sys.argv[1:])
    except KeyboardInterrupt:  # while it imports; what comes after is caught where it runs
        return 130


def _run(arguments: list[str]) -> int:
    if _verb(arguments) == "dial":
        from .cli import dial  # noqa: PLC0415  # the others are not needed

        return dial.main(arguments)
    try:
        from .cli.main import main as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print(
            "ipcpoll: the command needs click and rich, which are not installed; "
            "pip install 'ipcpoll[cli]'",
            file=sys.stderr,
        )
        return 2
    return run(arguments)


def _verb(arguments: Sequence[str]) -> str:
    """Return the first word that is neither an option nor the value of one."""
    words = iter(arguments)
    for word in words:
        if word in _HAVE_A_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


if __name__ == "__main__":
    sys.exit(main())
