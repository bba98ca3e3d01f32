"""Processor time and memory of a tree of processes, by role; reads Linux's /proc.

A role is found by the command line: `nexus ingress`, `nexus worker`, `nats-server`, and so on. A
process without a role of its own has that of its parent.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

COUNTED = ("ingress", "worker", "nats-server")
BESIDE = ("governor", "analytics", "supervisor")
"""Roles that are measured but are no part of the figures asked for."""

_ROLE_NAMES = {
    "nats-server": "nats-server",
    "up": "supervisor",
    **{role: role for role in ("ingress", "worker", "governor", "analytics")},
}
_ARGUMENTS_READ = 6
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STAT = re.compile(rb"\d+ \(.*\) ", re.DOTALL)


@dataclass(frozen=True)
class Process:
    """One process; `started` (clock ticks since boot) tells it from a later one of the same id."""

    pid: int
    started: int
    parent: int = field(compare=False)
    session: int = field(compare=False)


class Memory(msgspec.Struct, frozen=True):
    """Resident memory in bytes; `pss` counts each shared page once over all its users."""

    rss: int
    pss: int


class Reading(NamedTuple):
    """The state of a tree at one moment."""

    roles: dict[Process, str]
    cpu_ns: dict[Process, int]

    def since(self, earlier: "Reading") -> dict[str, int]:
        """Processor time by role, in ns, between an earlier reading and this one."""
        used: Counter[str] = Counter()
        for process, now in self.cpu_ns.items():
            used[self.roles[process]] += now - earlier.cpu_ns.get(process, 0)
        return dict(used)

    def restarted(self, earlier: "Reading") -> bool:
        """Whether processes came or went in between, so that the times are not complete."""
        return self.cpu_ns.keys() != earlier.cpu_ns.keys()


def cpu_ns(pid: int) -> int:
    """Processor time of a process in ns: user and system, all its threads, ended ones too."""
    # The kernel's id of another process's CPU clock, as clock_getcpuclockid(3) computes it.
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory(pid: int) -> Memory:
    """Resident memory of a process."""
    fields = {"Rss": 0, "Pss": 0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in fields:
            fields[name] = int(value.split()[0]) * 1024
    return Memory(fields["Rss"], fields["Pss"])


def machine_busy_ns() -> int:
    """Time that the processors of the machine were not idle since boot, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) * _TICK_NS


def role_of(arguments: list[str]) -> str | None:
    """The role that a command line names, if any."""
    for argument in arguments[:_ARGUMENTS_READ]:
        name = argument.rsplit("/", 1)[-1].removeprefix("nexus-")
        if name in _ROLE_NAMES:
            return _ROLE_NAMES[name]
    return None


def tree(root: int) -> list[Process]:
    """A process and all that descend from it, parents first, then others of its session."""
    everything = _all_processes()
    found = [process for process in everything if process.pid == root]
    for process in found:
        found.extend(child for child in everything if child.parent == process.pid)
    orphans = (process for process in everything if process.session == root)
    return found + [process for process in orphans if process not in found]


def _all_processes() -> list[Process]:
    found: list[Process] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found.append(_process(int(entry)))
            except OSError:
                continue
    return found


def _process(pid: int) -> Process:
    fields = _STAT.sub(b"", Path(f"/proc/{pid}/stat").read_bytes(), count=1).split()
    return Process(pid, int(fields[19]), parent=int(fields[1]), session=int(fields[3]))


def alive(process: Process) -> bool:
    """Whether this very process still runs (one that waits to be reaped does not)."""
    try:
        if _process(process.pid) != process:
            return False
        return b") Z " not in Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError:
        return False


class Meter:
    """Reads the trees below `roots` (process id -> role, empty to go by the command line)."""

    def __init__(self, roots: Mapping[int, str]) -> None:
        self._roots = roots

    def roles(self) -> dict[Process, str]:
        """Every process of the trees, with its role."""
        roles: dict[Process, str] = {}
        for root, name in self._roots.items():
            by_pid: dict[int, str] = {}
            for process in tree(root):
                inherited = by_pid.get(process.parent, name)
                role = name or role_of(_arguments(process.pid)) or inherited or "other"
                by_pid[process.pid] = roles[process] = role
        return roles

    def read(self) -> Reading:
        """Processor time of every process until now."""
        roles = self.roles()
        used: dict[Process, int] = {}
        for process in roles:
            try:
                used[process] = cpu_ns(process.pid)
            except OSError:
                continue
        return Reading(roles, used)

    def memory(self) -> dict[str, Memory]:
        """Resident memory by role."""
        sums: dict[str, Memory] = {}
        for process, role in self.roles().items():
            try:
                own = memory(process.pid)
            except OSError:
                continue
            so_far = sums.get(role, Memory(0, 0))
            sums[role] = Memory(so_far.rss + own.rss, so_far.pss + own.pss)
        return sums


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
