"""For those who write an adapter: the suite that proves it, and a fake on a real descriptor.

An adapter is proven in its real loop, with real clients. Derive a class whose name begins with
``Test`` from `AdapterConformance`, say how the loop is opened, run, stopped, given a timer and
closed, and how a pollable is attached; pytest collects the cases::

    class TestMyLoop(AdapterConformance):
        def open_loop(self): self.loop = my.Loop()
        def close_loop(self): self.loop.close()
        def run_loop(self): self.loop.run()
        def stop_loop(self): self.loop.stop()
        def call_later(self, seconds, function): self.loop.timer(seconds, function)
        def attach(self, pollable, ctx, *, max_seconds=None):
            return my_loop.attach(pollable, ctx, self.loop, max_seconds=max_seconds)

All that the suite asks of the loop are these hooks. It needs pytest only to be collected. Clients
run in threads of the test's process, and one case forks.
"""

from .commands import COMMANDS, Blob, Context, Do, Echo, End, Fail, Work
from .fakes import PATIENCE, FakePollable, Watched, any_detached, polled
from .suite import AdapterConformance, does_not_apply

__all__ = [
    "COMMANDS",
    "PATIENCE",
    "AdapterConformance",
    "Blob",
    "Context",
    "Do",
    "Echo",
    "End",
    "Fail",
    "FakePollable",
    "Watched",
    "Work",
    "any_detached",
    "does_not_apply",
    "polled",
]
