"""A chat over TCP on this machine, and a door for its administrator.

    $ twisted_chat.py serve --port 4000 &
    $ nc 127.0.0.1 4000                        the first line is one's name
    $ twisted_chat.py admin who
    $ twisted_chat.py admin say "closing in five minutes"
    $ twisted_chat.py admin kick ann

Whoever reaches the port may chat; only processes of this user come through the door.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import protocol
from twisted.internet.error import CannotListenError
from twisted.protocols.basic import LineOnlyReceiver

import ipcpoll
from ipcpoll.adapters import twisted_loop


class Guest(LineOnlyReceiver):
    """One connection; it is in the chat once it has said its name."""

    delimiter = b"\n"

    def __init__(self, chat: "Chat") -> None:
        self.chat = chat
        self.name = ""

    def say(self, text: str) -> None:
        self.sendLine(text.encode())  # type: ignore[no-untyped-call]  # Twisted's

    def leave(self) -> None:
        transport: Any = self.transport  # a TCP connection, and not any ITransport
        transport.loseConnection()

    def connectionMade(self) -> None:
        self.say("* your name?")

    def lineReceived(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if self.name:
            self.chat.tell(f"{self.name}: {text}")
        elif not text or text in self.chat.guests:
            self.say("* another name, please?")
        else:
            self.name = text
            self.chat.guests[text] = self
            self.chat.tell(f"* {text} is here")

    def connectionLost(self, reason: Any = None) -> None:
        if self.chat.guests.pop(self.name, None):
            self.chat.tell(f"* {self.name} has gone")


@dataclass
class Chat:
    """Who is here, by name."""

    guests: dict[str, Guest] = field(default_factory=dict)

    def tell(self, text: str) -> int:
        """Tell everybody, and return how many that is."""
        for guest in self.guests.values():
            guest.say(text)
        return len(self.guests)


@dataclass
class Who:
    """Answers the names of those who are here."""

    def process(self, ctx: Chat) -> list[str]:
        return sorted(ctx.guests)


@dataclass
class Say:
    """Tell everybody something; answers how many that is."""

    text: str

    def process(self, ctx: Chat) -> int:
        return ctx.tell(f"* admin: {self.text}")


@dataclass
class Kick:
    """Send somebody away."""

    name: str

    def process(self, ctx: Chat) -> None:
        guest = ctx.guests.get(self.name)
        if guest is None:
            raise ipcpoll.CommandError("no-such-guest", f"{self.name} is not here")
        guest.say("* admin: good bye")
        guest.leave()


def serve(address: str, port: int) -> None:
    """Chat until a signal comes. Its handler stops the reactor; then the server closes."""
    from twisted.internet import reactor as installed  # noqa: PLC0415  # it installs one

    reactor: Any = installed
    chat = Chat()
    with ipcpoll.Server(address, Who | Say | Kick) as server:
        twisted_loop.attach(server, chat, max_seconds=0.01)
        factory = protocol.Factory.forProtocol(lambda: Guest(chat))
        host = reactor.listenTCP(port, factory, interface="127.0.0.1").getHost()
        ready = f"chat at port {host.port}, door at {server.address}"
        reactor.callWhenRunning(lambda: print(ready, flush=True))
        reactor.run()


def check() -> None:
    """Start a chat, be two guests, and the administrator by other processes."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--address", f"{directory}/door"]

        def admin(*words: str) -> str:
            return subprocess.check_output([*command, "admin", *words], text=True)

        with subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True) as chat:
            try:
                assert chat.stdout is not None
                port = int(chat.stdout.readline().split()[3].strip(","))
                with enter(port, "ann") as ann, enter(port, "bob") as bob:
                    expect(ann, "* bob is here")
                    bob.sendall(b"hello\n")
                    expect(ann, "bob: hello")
                    assert admin("who") == "ann bob\n"
                    assert admin("say", "tea is ready") == "2 were told\n"
                    expect(ann, "* admin: tea is ready")
                    assert admin("kick", "bob") == ""
                    expect(ann, "* bob has gone")
                    assert admin("who") == "ann\n"
            finally:
                chat.terminate()
        assert chat.returncode == 0
    print("twisted_chat.py: all is well")


def enter(port: int, name: str) -> socket.socket:
    guest = socket.create_connection(("127.0.0.1", port), timeout=20)
    guest.sendall(f"{name}\n".encode())
    expect(guest, f"* {name} is here")
    return guest


def expect(guest: socket.socket, line: str) -> None:
    """Read until a line has come."""
    with guest.makefile("rb", buffering=0) as lines:
        while (read := lines.readline()) != f"{line}\n".encode():
            assert read, f"{line!r} did not come"


def main() -> int:
    parser = argparse.ArgumentParser(description="A chat, and its administrator's door.")
    parser.add_argument("--address", default="twisted-chat", help="a name, or a path with a slash")
    parser.add_argument("--port", type=int, default=0, help="where to chat; 0: any free port")
    parser.add_argument("--check", action="store_true", help="test it, with processes of its own")
    usage = "serve | admin who | admin say TEXT | admin kick NAME"
    parser.add_argument("words", nargs="*", metavar="WORD", help=usage)
    arguments = parser.parse_intermixed_args()
    try:
        match arguments.words:
            case [] if arguments.check:
                check()
            case ["serve"]:
                serve(arguments.address, arguments.port)
            case ["admin", "who"]:
                print(*ipcpoll.send(Who(), arguments.address))
            case ["admin", "say", text]:
                print(ipcpoll.send(Say(text), arguments.address), "were told")
            case ["admin", "kick", name]:
                ipcpoll.send(Kick(name), arguments.address)
            case _:
                parser.error(f"say one of: {usage}")
    except KeyboardInterrupt:
        return 130
    except (ipcpoll.IpcError, OSError, ValueError, CannotListenError) as error:
        print(f"twisted_chat.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
