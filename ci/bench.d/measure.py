"""What a group of processes costs: processor time and memory.

Processor time is that of a control group where one can be made. /proc is the other source; it
misses children that nobody waited for.
"""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class ControlGroup:
    """A group of processes whose processor time the system adds up."""

    # Where version 1 and version 2 have it, and which file tells the time in what unit.
    KINDS = [
        ("/sys/fs/cgroup/cpuacct", "cpuacct.usage", lambda text: int(text) / 1e9),
        ("/sys/fs/cgroup", "cpu.stat", lambda text: int(text.split()[1]) / 1e6),
    ]

    def __init__(self, path, file, parse):
        self.path, self._file, self._parse = path, file, parse

    @classmethod
    def create(cls, name):
        """A new, empty group; None where this cannot be had."""
        for root, file, parse in cls.KINDS:
            path = Path(root, f"pillarbox-bench-{os.getpid()}-{name}")
            try:
                path.mkdir()
            except OSError:
                continue
            if (path / file).exists() and os.access(path / "cgroup.procs", os.W_OK):
                return cls(path, file, parse)
            path.rmdir()
        return None

    def seconds(self):
        """User and system time of all that are or were in it."""
        return self._parse((self.path / self._file).read_text())

    def remove(self):
        """Removes the group when its processes are gone."""
        for _ in range(100):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.01)


def namespace(pid):
    """The process namespace that `pid` is in."""
    return os.readlink(f"/proc/{pid}/ns/pid")


def members(identity):
    """All processes of a process namespace."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if namespace(name) == identity:
                    found.append(int(name))
            except OSError:
                pass  # it ended meanwhile
    return found


def descendants(root):
    """A process and all its children's children."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat(int(name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += parents.get(pid, [])
    return found


def stat(pid):
    """The fields of /proc/PID/stat after the name, state first; None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def processor_seconds(pids):
    """User and system time of the processes and of the children that they waited for."""
    ticks = 0
    for pid in pids:
        fields = stat(pid)
        if fields:
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def memory(pids):
    """Proportional set size of the processes together, in bytes.

    None where we may not look: processes that hide from their own user, unless root asks.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        except PermissionError:
            return None
        except OSError:
            pass  # it ended meanwhile
    return total


class Calls:
    """System calls and context switches of processes, and of all they start, during the block.

    `counts` stays None where perf(1) is missing or may not look.
    """

    EVENTS = ["raw_syscalls:sys_enter", "context-switches"]

    def __init__(self, pids):
        self._pids = pids
        self.counts = None

    def __enter__(self):
        pids = ",".join(map(str, self._pids))
        command = ["perf", "stat", "-x", ";", "-e", ",".join(self.EVENTS), "-p", pids]
        try:
            self._perf = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            time.sleep(0.5)
        except OSError:
            self._perf = None
        return self

    def __exit__(self, *_):
        if self._perf is None:
            return
        self._perf.send_signal(signal.SIGINT)
        _, said = self._perf.communicate(timeout=30)
        first = [line.split(";")[0] for line in said.splitlines() if ";" in line]
        if len(first) == len(self.EVENTS) and all(count.isdigit() for count in first):
            self.counts = [int(count) for count in first]


class Peak:
    """The most memory that a group of processes had while the block ran."""

    def __init__(self, pids):
        self._pids = pids
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.1):
            self.bytes = max(self.bytes, memory(self._pids()) or 0)
