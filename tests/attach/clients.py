"""A client in the loop, beside a server or alone: cases for any loop of the suite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ipcpoll import Client, NotAnswered, NotPolled, Server
from ipcpoll.testing import PATIENCE, AdapterConformance, Do, Echo


@dataclass
class Count:
    """Gives numbers."""

    to: int

    def process(self, ctx: object) -> Iterator[int]:
        yield from range(self.to)


class ClientCases(AdapterConformance):
    """What a client does in a loop: no thread, no wait, nothing while nothing comes."""

    def test_client_and_server_in_one_loop(self):
        server, ctx = self.make_server()
        self.attach(server, ctx)
        got = []
        with Client(server.address, timeout=PATIENCE) as client:
            self.attach(client, None)

            def ask(number):
                future = client.submit(Echo(number))
                future.add_done_callback(lambda future: answered(future.result()))

            def answered(number):
                got.append(number)
                if number < 50:
                    ask(number + 1)
                else:
                    self.stop_loop()

            self.call_later(0, lambda: ask(0))
            self.run_loop()
            assert got == list(range(51))
            assert len(client.attachments) == 1
        assert client.attachments == set()

    def test_pieces_for_a_client_in_the_loop(self):
        """What their function raises goes where the loop's users look, and the next ones come."""
        got = []

        def take(piece):
            got.append(piece)
            if piece == 3 and self.reports_errors:
                raise ValueError(piece)

        with (
            Server(f"{self.directory}/pieces", Count) as server,
            Client(server.address, timeout=PATIENCE) as client,
        ):
            self.attach(server, None)
            self.attach(client, None)
            end = client.stream(Count(200)).each(take)
            end.add_done_callback(lambda _: self.stop_loop())
            self.run_loop()
            assert end.done()
        assert got == list(range(200))
        if self.reports_errors:
            assert [type(error) for error in self.reported()] == [ValueError]

    def test_time_limit_of_a_client_in_the_loop(self):
        """It is a timer in the client's descriptor, and the loop knows nothing of it."""
        server, _ = self.make_server()
        with Client(server.address, timeout=0.05) as client:
            self.attach(client, None)
            future = client.submit(Do())
            future.add_done_callback(lambda _: self.stop_loop())
            self.run_loop()
            assert isinstance(future.exception(), (NotAnswered, NotPolled))

    def test_client_closed_inside_its_own_function(self):
        server, ctx = self.make_server()
        self.attach(server, ctx)
        client = Client(server.address, timeout=PATIENCE)
        self.attach(client, None)
        future = client.submit(Echo(1))
        future.add_done_callback(lambda _: client.close())
        other = client.submit(Echo(2))
        other.add_done_callback(lambda _: self.stop_loop())
        self.run_loop()
        assert future.result() == 1
        assert other.done()
