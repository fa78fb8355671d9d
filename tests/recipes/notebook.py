"""Run a file as a cell of a notebook: notebook.py FILE. A line on its input ends the kernel."""

import sys
from pathlib import Path

from jupyter_client import KernelManager

manager = KernelManager(transport="ipc")  # over TCP it would warn that anybody can read along
manager.start_kernel()
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready()
    answer = client.execute(Path(sys.argv[1]).read_text(), reply=True)
    print(*answer["content"].get("traceback", ()), sep="\n", end="", file=sys.stderr)
    sys.stdin.readline()
finally:
    client.stop_channels()
    manager.shutdown_kernel()
