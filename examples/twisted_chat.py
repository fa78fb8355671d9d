"""A chat over TCP on this machine, and a door for its administrator.

    $ python twisted_chat.py serve --port 4000 &
    $ nc 127.0.0.1 4000                        the first line is one's name
    $ python twisted_chat.py admin who
    $ python twisted_chat.py admin say "closing in five minutes"
    $ python twisted_chat.py admin kick ann

Whoever reaches the port may chat; only processes of this user come through the door.
"""

import socket
from dataclasses import dataclass, field
from typing import Any, TextIO

import shell

import ipcpoll

with shell.needs("pip install twisted"):
    from twisted.internet import protocol
    from twisted.internet.error import CannotListenError
    from twisted.protocols.basic import LineOnlyReceiver

    from ipcpoll.adapters import twisted_loop


class Guest(LineOnlyReceiver):
    """One connection; it is in the chat once it has said its name."""

    delimiter = b"\n"

    def __init__(self, chat: "Chat") -> None:
        self.chat = chat
        self.name = ""

    def say(self, text: str) -> None:
        self.sendLine(text.encode())  # type: ignore[no-untyped-call]  # Twisted's

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
    """Answer the names of those who are here."""

    def process(self, ctx: Chat) -> list[str]:
        return sorted(ctx.guests)


@dataclass
class Say:
    """Tell everybody something; answer how many that is."""

    text: str

    def process(self, ctx: Chat) -> int:
        return ctx.tell(f"* admin: {self.text}")


@dataclass
class Kick:
    """Send somebody away."""

    name: str

    def process(self, ctx: Chat) -> None:
        if self.name not in ctx.guests:
            raise ipcpoll.CommandError("no-such-guest", f"{self.name} is not here")
        guest: Any = ctx.guests[self.name]  # its transport is of no declared type
        guest.say("* admin: good bye")
        guest.transport.loseConnection()


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
    with shell.Processes(__file__) as chats:
        chat = chats.start("serve")
        port = int(shell.next_line(chat).split()[3].strip(","))
        with enter(port, "ann") as ann, enter(port, "bob") as bob:
            assert "* bob is here\n" in ann
            print("hello", file=bob, flush=True)
            assert "bob: hello\n" in ann
            assert chats.run("admin", "who") == "ann\nbob\n"
            assert chats.run("admin", "say", "tea is ready") == "2\n"
            assert "* admin: tea is ready\n" in ann
            assert chats.run("admin", "kick", "bob") == ""
            assert "* bob has gone\n" in ann
            assert chats.run("admin", "who") == "ann\n"
        chat.terminate()
        assert chat.wait() == 0


def enter(port: int, name: str) -> TextIO:
    """Return a guest's connection. `in` reads it until the line has come, or its end."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        guest = connection.makefile("rw")
    print(name, file=guest, flush=True)
    assert f"* {name} is here\n" in guest
    return guest


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, address="twisted-chat", check=check)
    verb = line.add_verb("serve", "Let guests in, until a signal comes.", serve)
    verb.add_argument("--port", type=int, default=0, help="where to chat; 0: any free port")
    admin = line.add_verb("admin", "Come through the door.")
    admin.add_commands(Who, Say, Kick)
    line.main(CannotListenError)
