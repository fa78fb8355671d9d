"""The client of sliced_job.py that lets the game do a long job: ``_searching.py PATH TRIES``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share

import _servers
from balls import Search

import ipcpoll

if __name__ == "__main__":
    _servers.end_with_parent()
    path, tries = sys.argv[1:]
    with ipcpoll.Client(path, timeout=None) as client, client.stream(Search(int(tries))) as stream:
        next(stream)
        _servers.ready()
        for _ in stream:  # it reads all, or the job would wait for it
            pass
