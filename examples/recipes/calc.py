"""The commands of all recipes. Their context is the function that ends the program's loop."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Add:
    """Add two numbers."""

    a: int
    b: int

    def process(self, ctx: Callable[[], object]) -> int:
        return self.a + self.b


@dataclass
class Stop:
    """End the program. It answers first."""

    def process(self, ctx: Callable[[], object]) -> None:
        ctx()
