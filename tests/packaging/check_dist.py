"""Check that the sdist and the wheel in dist/ hold what they should, once, and nothing else."""

import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What of the tree goes into the sdist. A folder may be missing, an empty one does not count.
FOLDERS = (".ci", "adapters", "benchmarks", "docs", "examples", "ipcpoll", "tests")
FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
    "setup.cfg",
)
METADATA = {
    "Name: ipcpoll",
    "License-Expression: MIT",
    "Requires-Python: >=3.11",
    "Requires-Dist: cbor2>=6.3.0",
    "Requires-Dist: msgspec>=0.22.0",
}


def main() -> int:
    [sdist] = (ROOT / "dist").glob("*.tar.gz")
    [wheel] = (ROOT / "dist").glob("*.whl")
    problems = [*check_sdist(sdist), *check_wheel(wheel)]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{sdist.name} and {wheel.name} hold what they should")
    return bool(problems)


def check_sdist(path: Path) -> Iterator[str]:
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    top = path.name.removesuffix(".tar.gz") + "/"
    found = [member.name.removeprefix(top) for member in members]
    yield from (f"{path.name}: {m.name} is no file" for m in members if not m.isfile())
    made = {"PKG-INFO", *(name for name in found if name.startswith("ipcpoll.egg-info/"))}
    yield from compare(path.name, found, {*FILES, *files_of_folders(), *made})


def check_wheel(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        found = archive.namelist()
        info = "-".join(path.name.split("-")[:2]) + ".dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        if archive.read(f"{info}/top_level.txt") != b"ipcpoll\n":
            yield f"{path.name}: installs more than ipcpoll at the top level"
    made = (
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    )
    expected = {f"{info}/{name}" for name in made}
    for name in files_of_folders():
        if name.startswith("ipcpoll/"):
            expected.add(name)
        elif name.startswith("adapters/"):
            expected.add(f"ipcpoll/{name}")
    yield from compare(path.name, found, expected)
    head = metadata.partition("\n\n")[0].splitlines()
    yield from (f"{path.name}: METADATA lacks {line}" for line in sorted(METADATA.difference(head)))


def files_of_folders() -> set[str]:
    """The files of the tree under FOLDERS; rglob does not follow the link."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def compare(archive: str, found: list[str], expected: set[str]) -> Iterator[str]:
    yield from (f"{archive}: lacks {name}" for name in sorted(expected.difference(found)))
    for name, count in sorted(Counter(found).items()):
        if name not in expected:
            yield f"{archive}: should not hold {name}"
        elif count > 1:
            yield f"{archive}: holds {name} {count} times"


if __name__ == "__main__":
    sys.exit(main())
