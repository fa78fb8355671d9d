"""What loops that know their readers by number are asked beside the suite."""

from __future__ import annotations

from ipcpoll import Client
from ipcpoll.testing import PATIENCE, AdapterConformance, Do, Echo


class AttachingCases(AdapterConformance):
    """The adapter takes out and puts in again what it is being called for."""

    def test_detached_and_attached_in_a_command(self):
        """The same descriptor, in the midst of its own callback, or its task's step."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)

        def again():
            nonlocal attachment
            attachment.detach()
            attachment = self.attach(server, ctx)

        ctx.do = again

        def ask():
            with Client(server.address, timeout=PATIENCE) as client:
                for value in range(5):
                    client.call(Do())
                    assert client.call(Echo(value)) == value

        self.run(ask)
        assert attachment.attached
        assert server.attachments == {attachment}
        assert self.reported() == []
