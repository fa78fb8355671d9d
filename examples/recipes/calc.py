"""The commands of all recipes, and a client for each of them.

    $ python in_pyglet.py &        or another one
    $ python calc.py add 2 3
    $ python calc.py stop

Their context is the function that ends the program's loop, or a `Program`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Program:
    """A context that has a label too. There the last sum is shown."""

    end: Callable[[], object]
    label: Any

    def __call__(self) -> None:
        self.end()


Context = Callable[[], object]


@dataclass
class Add:
    """Add two numbers."""

    a: int
    b: int

    def process(self, ctx: Context) -> int:
        total = self.a + self.b
        if isinstance(ctx, Program):
            ctx.label.text = f"{self.a} + {self.b} = {total}"
        return total


@dataclass
class Stop:
    """End the program. It answers first."""

    def process(self, ctx: Context) -> None:
        ctx()


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import shell

    line = shell.CommandLine(__doc__, address="calc")
    line.add_commands(Add, Stop)
    line.main()
