"""What is measured: each scene drives one server once and returns named figures."""

import json
import math
import os
import resource
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import measure
from servers import Failed, free_port

MIB = 1024 * 1024
# How long a server may take after a restart to know its queue, in seconds; some take minutes.
KNOWN_WITHIN = 60


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
    unit: str = ""
    # Whether a larger figure is better.
    more: bool = True
    # Rounds at most, for what takes minutes.
    rounds: int = 100
    # Servers that take part, or all.
    only: set = field(default_factory=set)
    targets: list = field(default_factory=list)


def load(place, command, **options):
    """Runs the loader; what it found."""
    words = [place.loader, command]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1800)
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


def drive(place, server, scene):
    """Runs `scene` against `server` once, from a fresh start; its figures by name."""
    on_disk = scene.storage == "disk"
    storage = place.fresh_on_disk() if on_disk else place.tmpfs
    if scene.kind == "relay":
        scene.sink = free_port()
    server.prepare(storage, scene)
    try:
        started = server.start()
        figures = KINDS[scene.kind](place, server, scene)
        figures.setdefault("start", started)
        return figures
    except (OSError, subprocess.SubprocessError, Failed) as error:
        raise Failed(f"{server.name}, {scene.title}: {error}\n{server.log()}") from error
    finally:
        server.stop()
        if not on_disk:
            server.remove()


def destination(server, scene):
    """Options of the loader that say where mail goes and where it is counted."""
    if scene.kind == "relay":
        return {"domain": "relay.test", "sink": f"127.0.0.1:{scene.sink}"}
    return {"mail": server.work / "mail", "mailboxes": 10}


def throughput(place, server, scene):
    """Messages delivered a second, and processor time of 1,000."""
    to = f"127.0.0.1:{server.port}"
    where = destination(server, scene)
    warm = {**where, "messages": 40, "sessions": min(4, scene.sessions)}
    if scene.kind != "relay":
        # A sink can be bound once only, so a relay is measured cold.
        load(place, "run", to=to, run=place.name_run(), **warm)
    before = server.processor_seconds()
    result = load(
        place,
        "run",
        to=to,
        run=place.name_run(),
        sessions=scene.sessions,
        messages=scene.messages,
        per_session=scene.per_session,
        size=scene.size,
        **where,
    )
    spent = server.processor_seconds() - before
    account(server, result)
    return {
        "value": result["messages"] / result["delivered_seconds"],
        "processor": spent / result["messages"] * 1000,
        "accept": result["messages"] / result["accept_seconds"],
        "again": result["failures"],
    }


def large(place, server, scene):
    """MiB delivered a second, and memory that each message in flight takes."""
    idle = server.memory()
    with measure.Peak(server.pids) as peak:
        result = load(
            place,
            "run",
            to=f"127.0.0.1:{server.port}",
            run=place.name_run(),
            sessions=scene.sessions,
            messages=scene.messages,
            size=scene.size,
            **destination(server, scene),
        )
    account(server, result)
    figures = {"value": scene.messages * scene.size / MIB / result["delivered_seconds"]}
    if idle is not None:
        figures["memory"] = max(0, peak.bytes - idle) / MIB / scene.sessions
    return figures


def budget(place, server, scene):
    """System calls and context switches that a message to a mailbox takes under load."""
    options = {"to": f"127.0.0.1:{server.port}", "sessions": scene.sessions}
    where = destination(server, scene)
    load(place, "run", run=place.name_run(), messages=40, **options, **where)
    with measure.Calls(server.pids()) as calls:
        run = place.name_run()
        result = load(place, "run", run=run, messages=scene.messages, **options, **where)
    account(server, result)
    if calls.counts is None:
        return {}
    system_calls, switches = (count / scene.messages for count in calls.counts)
    return {"value": system_calls, "switches": switches}


def latency(place, server, scene):
    """Milliseconds to the final 250, beside a plain synced append on the same disk."""
    result = load(
        place,
        "latency",
        to=f"127.0.0.1:{server.port}",
        run=place.name_run(),
        disk=server.work / "append",
        messages=scene.messages,
        mailboxes=10,
    )
    return {
        "value": result["reply_median"] * 1000,
        "append": result["append_median"] * 1000,
        "over": (result["reply_median"] - result["append_median"]) * 1000,
    }


def idle_sessions(place, server, scene):
    """KiB that each idle session takes, and the time of one more session."""
    before = server.memory()
    words = [place.loader, "idle", "--to", f"127.0.0.1:{server.port}"]
    words += ["--sessions", str(scene.sessions)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    idle = subprocess.Popen(words, **pipes)
    try:
        if idle.stdout.readline() != b"ready\n":
            raise Failed(idle.stderr.read().decode(errors="replace"))
        time.sleep(1)
        after = server.memory()
        said, _ = idle.communicate(b"\n", timeout=120)
    finally:
        idle.kill()
        idle.wait()
    result = json.loads(said)
    if result["sessions"] != scene.sessions:
        raise Failed(f"only {result['sessions']} sessions stayed")
    figures = {"another": result["another_seconds"] * 1000}
    if before is not None and after is not None:
        figures["value"] = max(0, after - before) / scene.sessions / 1024
    return figures


def idle_daemon(_place, server, _scene):
    """MiB of the idle daemon; the time to its banner is noted for every start."""
    time.sleep(2)
    memory = server.memory()
    return {} if memory is None else {"value": memory / MIB}


def deferred(place, server, scene):
    """Accepting with few and with many deferred envelopes, listing them, and a restart."""
    to = f"127.0.0.1:{server.port}"
    few, step = 1000, 2000

    def accept(messages, recipients=1):
        result = load(
            place,
            "run",
            to=to,
            run=place.name_run(),
            sessions=10,
            messages=messages,
            per_session=100,
            recipients=recipients,
            domain="deferred.test",
            mailboxes=1000,
        )
        account(server, result)
        return messages / result["accept_seconds"]

    accept(few)
    at_few = accept(step)
    rest = scene.messages - few - 2 * step
    accept(rest // 100, recipients=100)
    settle(server, few + step + rest)
    at_many = accept(step)
    settle(server, scene.messages)
    figures = {"value": at_many, "few": at_few, "share": at_many / at_few}
    begin = time.monotonic()
    listed = server.list_queue()
    if listed is not None:
        figures["listing"] = time.monotonic() - begin
    memory = server.memory()
    if memory is not None:
        figures["memory"] = memory / MIB
    if server.queued() is None:
        return figures
    known = server.queued()
    server.stop(gently=True)
    begin = time.monotonic()
    figures["restart"] = server.start()
    figures["known"] = math.inf
    while time.monotonic() - begin < KNOWN_WITHIN:
        if server.queued() >= known:
            figures["known"] = time.monotonic() - begin
            break
        time.sleep(0.05)
    return figures


def settle(server, envelopes):
    """Waits until the server knows so many envelopes and rests."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        known = server.queued()
        before = server.processor_seconds()
        time.sleep(1)
        rests = server.processor_seconds() - before < 0.2
        if rests and (known is None or known >= envelopes):
            return


KINDS = {
    "budget": budget,
    "deferred": deferred,
    "idle daemon": idle_daemon,
    "idle sessions": idle_sessions,
    "large": large,
    "latency": latency,
    "maildir": throughput,
    "relay": throughput,
}


def raise_descriptor_limit():
    """As many descriptors as the system lets us have, for servers and loader."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
