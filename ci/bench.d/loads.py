"""What scenes share: where things are, what a scene is, and the loader that they run."""

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers import Failed

MIB = 1024 * 1024


@dataclass
class Place:
    """Where things are in this run."""

    loader: str
    tmpfs: str
    disk: str
    serial: int = 0

    def name_run(self):
        """A name that no other run of the loader had."""
        self.serial += 1
        return f"r{self.serial}"

    def fresh_on_disk(self):
        """A directory on the disk that no other run had, removed when the benchmark ends.

        ext4 steps over the inodes of files deleted in the last minutes whenever it makes one, so
        what one run leaves behind, removed, would slow whoever comes next by up to a millisecond
        a file.
        """
        self.serial += 1
        directory = Path(self.disk) / f"d{self.serial}"
        directory.mkdir(mode=0o755)
        os.sync()
        return directory


@dataclass
class Scene:
    """One row of the table: what is done, and to what end."""

    title: str
    kind: str
    storage: str = "tmpfs"
    sessions: int = 1
    messages: int = 0
    per_session: int = 1
    size: int = 4096
    sink: int | None = None
    # Whether sessions use STARTTLS, as the loader's option says it: no, new, resumed.
    tls: str = "no"
    # Where slow clients are slow, as the loader's option says it.
    slow: str = ""
    unit: str = ""
    # Whether a larger figure is better.
    more: bool = True
    # Rounds at most, for what takes minutes.
    rounds: int = 100
    # Servers that take part, or all.
    only: set = field(default_factory=set)
    targets: list = field(default_factory=list)


def words(place, command, options):
    """The command line of the loader."""
    found = [place.loader, command]
    for name, value in options.items():
        found += [f"--{name.replace('_', '-')}", str(value)]
    return found


def load(place, command, **options):
    """Runs the loader; what it found."""
    done = subprocess.run(
        words(place, command, options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=1800,
    )
    if done.returncode != 0:
        raise Failed(f"loader: {done.stderr.decode(errors='replace').strip()}")
    return json.loads(done.stdout)


def account(server, result):
    """Refuses a result in which messages are missing, doubled or damaged."""
    wrong = {name: result[name] for name in ["lost", "duplicate", "damaged"] if result[name]}
    if result["accepted"] != result["messages"]:
        wrong["refused"] = result["messages"] - result["accepted"]
    if wrong:
        raise Failed(f"{server.name}: {wrong} {result['failure']}")


@contextmanager
def waiting(place, command, **options):
    """A loader that opens sessions and holds them during the block; it is ended by what is said, or
    not said, to its standard input."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    loader = subprocess.Popen(words(place, command, options), **pipes)
    try:
        if loader.stdout.readline() != b"ready\n":
            raise Failed(loader.stderr.read().decode(errors="replace"))
        yield loader
    finally:
        loader.kill()
        loader.wait()


def destination(server, scene):
    """Options of the loader that say where mail goes and where it is counted."""
    if scene.kind == "relay":
        return {"domain": "relay.test", "sink": f"127.0.0.1:{scene.sink}"}
    return {"mail": server.work / "mail", "mailboxes": 10}
