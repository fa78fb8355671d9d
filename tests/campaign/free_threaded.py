"""The suite under a free-threaded CPython (3.13t, 3.14t), if one is found on this machine.

It is looked for as ``python3.14t`` and ``python3.13t`` in PATH and among pyenv's versions. The GIL
must stay off: an extension that does not declare that it can do without switches it on again.

    python tests/campaign/free_threaded.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

import environments
from part import Figures, run_as_program

VERSIONS = ("3.14t", "3.13t")
IS_FREE_THREADED = "import sys, sysconfig, ensurepip, venv; \
sys.exit(not sysconfig.get_config_var('Py_GIL_DISABLED'))"
IS_GIL_OFF = "import sys, ipcpoll, cbor2, msgspec; sys.exit(sys._is_gil_enabled())"


def find() -> str | None:
    """Return a free-threaded CPython that works, or None."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    for version in VERSIONS:
        name = f"python{version}"
        of_pyenv = sorted(versions.glob(f"{version[:-1]}*t/bin"))
        for candidate in [folder / name for folder in (*folders, *of_pyenv)]:
            if not candidate.is_file():
                continue
            done = subprocess.run([candidate, "-c", IS_FREE_THREADED], check=False)
            if done.returncode == 0:
                return str(candidate)
    return None


def campaign(seconds: float) -> Figures:
    """Run the suite once."""
    python = find()
    if python is None:
        return {"free-threaded CPython": f"none found here: no {' and no '.join(VERSIONS)}"}
    made = environments.make(".venv-free-threaded", "test", python)
    environments.run(made, "-X", "gil=0", "-c", IS_GIL_OFF)
    return {"free-threaded CPython": python, **environments.run_suite(made, "-m", "not once")}


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
