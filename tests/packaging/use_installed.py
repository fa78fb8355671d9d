"""Use the installed ipcpoll, in its own environment and outside the tree: a call and its answer.

Run as ``python -I use_installed.py`` by an interpreter whose environment holds the wheel.
"""

import importlib
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ipcpoll

PATIENCE = 30.0  # seconds; only a failure waits so long


@dataclass
class Add:
    """Add two numbers, and remember the sum."""

    a: int
    b: int

    def process(self, ctx: list[int]) -> int:
        ctx.append(self.a + self.b)
        return ctx[-1]


def main() -> None:
    package = Path(ipcpoll.__file__).parent
    assert sys.prefix != sys.base_prefix, "this is no environment"
    assert package.is_relative_to(sys.prefix), f"{package} is not in {sys.prefix}"

    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as folder:
        call(Path(folder, "socket"))

    assert "ipcpoll.adapters" not in sys.modules, "the core has imported its adapters"
    adapters = importlib.import_module("ipcpoll.adapters")
    assert Path(str(adapters.__file__)).parent == package / "adapters"
    assert "adapters" not in sys.modules, "adapters came in under a second name"
    print(f"{package} works")


def call(address: Path) -> None:
    """Serve one call that a second process makes."""
    sums: list[int] = []
    with ipcpoll.Server(address, Add) as server:
        command = [sys.executable, "-I", __file__, str(address)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            while not sums:
                readable, _, _ = select.select([server.fileno()], [], [], PATIENCE)
                assert readable, "no call has come"
                server.poll(sums)
            answer, _ = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, f"the client has failed: {client.returncode}"
    assert answer == "5\n", f"the client has got {answer!r}"
    assert sums == [5], sums
    assert not address.exists(), "the socket is still there"


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case [address]:
            print(ipcpoll.send(Add(2, 3), address, timeout=PATIENCE))
        case _:
            sys.exit("usage: use_installed.py")
