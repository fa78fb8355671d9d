"""The tables of docs/benchmarks.md, made from what `make bench` has written: name → Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from _calls import ONE_CORE, TWO_CORES
from _measured import Measured, middle, worded
from _peers import PEERS

NAMES: Final = {
    "ping": "bare ping-pong, 24 bytes",
    "bare": "bare loop, same codec",
    "ipcpoll": "**ipcpoll**",
} | {name: peer.shown for name, peer in PEERS.items()}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, the first column to the left, the others to the right."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def machine(measured: Measured) -> str:
    file = measured.files["one_call"]
    rounds = ", ".join(f"{name} {each['rounds']}" for name, each in measured.files.items())
    quick = any(each["quick"] for each in measured.files.values())
    warning = "\n\n**Measured with `--quick`: it runs. These figures prove nothing.**" * quick
    return f"{file['machine']}. Rounds: {rounds}.{warning}"


def calls(measured: Measured, kind: str, placement: str) -> str:
    """Return every candidate of peers.py, the fastest first."""
    section = f"{kind}, {placement}"
    names = measured.names("peers", section)
    names.sort(key=lambda name: measured.median("peers", section, name, "wall"))
    rows: list[list[str]] = []
    for name in names:
        costs = (measured.median("peers", section, name, what) for what in ("wall", "p99"))
        cpu = (measured.median("peers", section, name, what) for what in ("client", "server"))
        cells = [NAMES[name], *(f"{cost:.1f}" for cost in (*costs, *cpu))]
        cells.append(worded(measured.ratios("peers", section, name, "ping")))
        if kind == "calls":
            cells.append(worded(measured.ratios("peers", section, name, "bare")))
        for figure in ("wall", "processor"):
            ratios = measured.ratios("peers", section, name, "ipcpoll", figure)
            cells.append("" if name == "ipcpoll" else worded(ratios))
        rows.append(cells)
    head = [placement, "median", "p99", "CPU client", "CPU server", "/ ping-pong"]
    head += ["/ bare loop"] * (kind == "calls") + ["/ ipcpoll", "CPU / ipcpoll"]
    return markdown(head, rows)


def lossy(measured: Measured) -> str:
    [section] = measured.sections("lossy")
    rows: list[list[str]] = []
    for name in measured.names("lossy", section):
        sent, lost = (sum(measured.each("lossy", section, name, what)) for what in ("sent", "lost"))
        rows.append([name, f"{sent:.0f}", f"{lost:.0f}"])
    return markdown([section, "sent", "lost"], rows)


def pipelined(measured: Measured, placement: str) -> str:
    found = measured.names("pipelined", placement)
    depths = sorted({int(name.rpartition(" ")[2]) for name in found if name != "ping"})
    rows: list[list[str]] = []
    for way in ("map", "submit", "submit, result()"):
        each = (
            worded(measured.ratios("pipelined", placement, "ping", f"{way} {depth}"))
            for depth in depths
        )
        rows.append([way, *each])
    return markdown([placement, *(f"depth {depth}" for depth in depths)], rows)


def payloads(measured: Measured, placement: str) -> str:
    rows: list[list[str]] = []
    for name in measured.names("payloads", placement):
        who, _, size = name.partition(", ")
        if who == "ipcpoll":
            bare = f"bare socket, {size}"
            medians = (
                measured.median("payloads", placement, each, "wall") for each in (bare, name)
            )
            ratios = measured.ratios("payloads", placement, bare, name)
            rows.append([size, *(f"{median:.1f}" for median in medians), worded(ratios)])
    return markdown([placement, "bare socket", "ipcpoll", "share of its throughput"], rows)


def idle(measured: Measured) -> str:
    rows: list[list[str]] = []
    for name in measured.names("idle_poll", "idle poll"):
        who, _, size = name.partition(" ")
        if who == "server":
            bare = f"bare {size}"
            medians = (
                measured.median("idle_poll", "idle poll", each, "value") for each in (bare, name)
            )
            over = (
                worded(measured.ratios("idle_poll", "idle poll", name, base, "value"))
                for base in (bare, "server 0")
            )
            rows.append([size, *(f"{median:.3f}" for median in medians), *over])
    head = ["connections", "epoll.poll(0)", "Server.poll", "ratio", "to no connection"]
    return markdown(head, rows)


def memory(measured: Measured) -> str:
    rows = [
        [f"{name} connections", f"{measured.median('memory', 'memory', name, 'value'):.0f}"]
        for name in measured.names("memory", "memory")
    ]
    traced = measured.names("memory", "allocated by")
    for name in traced[:6]:
        allocated = measured.median("memory", "allocated by", name, "value")
        rows.append([f"of these, by `{name}`", f"{allocated:.0f}"])
    return markdown(["an idle connection", "bytes"], rows)


def polite(measured: Measured) -> str:
    rows: list[list[str]] = []
    for name in measured.names("fairness", "polite"):
        costs = (measured.median("fairness", "polite", name, what) for what in ("wall", "p99"))
        ratios = measured.ratios("fairness", "polite", name, "alone", "p99")
        rows.append([name, *(f"{cost:.1f}" for cost in costs), worded(ratios)])
    return markdown(["a polite client", "median", "p99", "p99 / alone"], rows)


def overrun(measured: Measured) -> str:
    rows: list[list[str]] = []
    for name in measured.names("fairness", "overrun"):
        whats = ("median", "p999", "processor_median", "processor_p999")
        costs = (measured.median("fairness", "overrun", name, what) for what in whats)
        rows.append([name, *(f"{cost:.1f}" for cost in costs)])
    return markdown(
        ["µs, `max_seconds=0.002`", "median", "p99.9", "median, CPU", "p99.9, CPU"], rows
    )


def growth(measured: Measured) -> str:
    rows: list[list[str]] = []
    for grown in measured.sections("growth"):
        sizes = [name for name in measured.names("growth", grown) if name.isdecimal()]
        for size in sizes:
            cpu = measured.median("growth", grown, size, "server")
            ratios = measured.ratios("growth", grown, size, sizes[0], "server")
            rows.append([f"{grown}: {size}", f"{cpu:.1f}", worded(ratios)])
    return markdown(["", "CPU of the server, µs", "over the fewest"], rows)


def adapters(measured: Measured) -> str:
    rows: list[list[str]] = []
    for section in measured.sections("adapters"):
        loop, _, placement = section.partition(", ")
        if placement == ONE_CORE:
            each = (
                worded(measured.ratios("adapters", section, name, "bare", "value"))
                for name in ("attached", "server", "client")
            )
            idled = (
                measured.median("adapters", f"{loop}, idle", name, "value")
                for name in ("waits by hand", "waits", "polls")
            )
            rows.append([loop, *each, *(f"{count:.0f}" for count in idled)])
    head = ["loop", "adapter / by hand", "server / by hand", "`Client.call` / by hand"]
    return markdown([*head, "idle waits by hand", "idle waits", "idle polls"], rows)


def imports(measured: Measured) -> str:
    libraries, ours = (
        measured.each("import_time", "import", name, "value") for name in ("libraries", "ipcpoll")
    )
    more = statistics.median(one - other for one, other in zip(ours, libraries, strict=True))
    cells = [f"{statistics.median(each):.1f}" for each in (libraries, ours)]
    return markdown(
        ["ms in a fresh interpreter", "cbor2, msgspec", "ipcpoll", "difference"],
        [["import", *cells, f"{more:.1f}"]],
    )


# ---------------------------------------------------------------------------------------------
# Aims


def aims(measured: Measured) -> str:
    """Return what the project works toward beside what was measured."""
    rows: list[list[str]] = []

    def add(
        what: str, aim: str, found: Sequence[float], *, most: float = 0, least: float = 0
    ) -> None:
        median = middle(found)[0]
        reached = median <= most if most else median >= least
        rows.append([what, aim, worded(found), "yes" if reached else "**no**"])

    for placement in measured.placements():
        section = f"calls, {placement}"
        where = {ONE_CORE: "one core", TWO_CORES: "two cores"}[placement]
        bare = measured.ratios("peers", section, "ipcpoll", "bare")
        add(f"one call / bare loop, {where}", "at most 1.25", bare, most=1.25)
        peers = [name for name in measured.names("peers", section) if name in PEERS]
        for figure, shown in (("wall", "wall"), ("processor", "CPU")):
            nearest = min(
                (measured.ratios("peers", section, name, "ipcpoll", figure) for name in peers),
                key=statistics.median,
            )
            add(f"nearest peer / ipcpoll, {shown}, {where}", "at least 1.2", nearest, least=1.2)
        for way, least in (("map", 1.6), ("submit", 1.0)):
            if f"{way} 64" in measured.names("pipelined", placement):
                found = measured.ratios("pipelined", placement, "ping", f"{way} 64")
                what = f"`{way}` at depth 64, calls per ping-pong, {where}"
                add(what, f"at least {least}", found, least=least)
        once = measured.ratios("peers", f"one-shot, {placement}", "ipcpoll", "ping")
        add(f"one-shot / bare, {where}", "at most 3.5", once, most=3.5)
        whole = measured.ratios("payloads", placement, "bare socket, 1 MiB", "ipcpoll, 1 MiB")
        add(f"1 MiB, share of the throughput, {where}", "at least 0.5", whole, least=0.5)
    sizes = [name for name in measured.names("idle_poll", "idle poll") if name.startswith("server")]
    first, last = sizes[0], sizes[-1]
    bare = measured.ratios("idle_poll", "idle poll", first, "bare 0", "value")
    add("idle poll / `epoll.poll(0)`", "at most 1.6", bare, most=1.6)
    flat = measured.ratios("idle_poll", "idle poll", last, first, "value")
    connections = last.partition(" ")[2]
    add(f"idle poll, {connections} connections / none", "at most 1.2", flat, most=1.2)
    tails = measured.ratios("fairness", "polite", "beside a flooder", "alone", "p99")
    add("polite client beside a flooder, p99 / alone", "at most 3", tails, most=3)
    names = ("overrun of poll", "overrun of an empty loop", "poll of one command")
    for kind, what in (("", "p999"), (" of CPU time", "processor_p999")):
        poll, empty, one = (measured.each("fairness", "overrun", name, what) for name in names)
        over = [a / (b + c) for a, b, c in zip(poll, empty, one, strict=True)]
        add(f"overrun{kind}, p99.9 / (empty loop + one command)", "at most 1", over, most=1)
    [section] = measured.sections("lossy")
    lost = sum(measured.each("lossy", section, "ipcpoll, tight loop", "lost"))
    rows.append(["one-shot commands lost", "0", f"{lost:.0f}", "**no**" if lost else "yes"])
    return markdown(["", "aim", "measured", "reached"], rows)


def tables(measured: Measured) -> dict[str, Callable[[], str]]:
    """Return what makes each table, by the name in its marker."""

    def placed(table: Callable[[str], str]) -> str:
        return "\n\n".join(map(table, measured.placements()))

    return {
        "machine": lambda: machine(measured),
        "aims": lambda: aims(measured),
        "calls": lambda: placed(lambda placement: calls(measured, "calls", placement)),
        "one-shot": lambda: placed(lambda placement: calls(measured, "one-shot", placement)),
        "lossy": lambda: lossy(measured),
        "pipelined": lambda: placed(lambda placement: pipelined(measured, placement)),
        "payloads": lambda: placed(lambda placement: payloads(measured, placement)),
        "idle": lambda: idle(measured),
        "memory": lambda: memory(measured),
        "polite": lambda: polite(measured),
        "overrun": lambda: overrun(measured),
        "growth": lambda: growth(measured),
        "adapters": lambda: adapters(measured),
        "imports": lambda: imports(measured),
    }
