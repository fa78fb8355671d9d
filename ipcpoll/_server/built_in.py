"""The commands that every server answers: made when somebody calls the first of them.

What is promised: a server that nobody asks pays nothing for them, not even an import. The classes
are in the operator's rooms, which know no server; here is what they are told of the process.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from .._schema.commands import CommandSet, CommandType
from .._shown import encodable

_SUFFIX: Final = ".sock"


class BuiltIns:
    """The built-in commands of one server."""

    def __init__(
        self, commands: CommandSet, address: str, name: str | None, version: str | None
    ) -> None:
        self._commands = commands
        self._name = os.path.basename(address).removesuffix(_SUFFIX) if name is None else name
        self._version = version
        self._began = time.time()
        self._made: Mapping[str, CommandType] | None = None

    def __call__(self) -> Mapping[str, CommandType]:
        """Return them by name."""
        if self._made is None:
            # The one import of an operator's room by the core; tests/test_architecture.py allows
            # it here, in a function, and nowhere else. `import ipcpoll` must not load that room.
            from ..describe.built_in import for_server  # noqa: PLC0415

            self._made = for_server(self._commands, self._program())
        return self._made

    def _program(self) -> dict[str, Any]:
        return {
            "name": encodable(self._name),
            "version": None if self._version is None else encodable(self._version),
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "started": self._began,
            "command": encodable(shlex.join(_command())),
        }


def check_identity(name: object, version: object) -> None:
    """Raise TypeError for what can be no name, or no version, of a program."""
    for what, value in (("name", name), ("version", version)):
        if value is not None and not isinstance(value, str):
            raise TypeError(f"the {what} of a program is text, not {value!r}")


def _command() -> list[str]:
    """Return how the program was started, without its arguments: they may hold a secret."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    words = [sys.executable or "python"]
    if spec is not None and spec.name != "__main__":  # else a folder, or a zip file
        return [*words, "-m", spec.name.removesuffix(".__main__")]
    path = getattr(main, "__file__", None)
    return words if path is None else [*words, path]
