"""What is measured: each scene drives one server once and returns named figures."""

import math
import os
import resource
import subprocess
import time

import crowds
import measure
from loads import MIB, account, destination, load
from servers import Failed, free_port

# How long a server may take after a restart to know its queue, in seconds; some take minutes.
KNOWN_WITHIN = 60
# How often the listeners with and without a filter take turns.
FILTER_TURNS = 10
# Descriptors that the benchmark raises its limit to, where it may.
DESCRIPTORS = 65536


def drive(place, server, scene):
    """Runs `scene` against `server` once, from a fresh start; its figures by name."""
    on_disk = scene.storage == "disk"
    storage = place.fresh_on_disk() if on_disk else place.tmpfs
    if scene.kind == "relay":
        scene.sink = free_port()
    server.prepare(storage, scene, place.loader)
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


def throughput(place, server, scene):
    """Messages delivered a second, and processor time of 1,000."""
    to = f"127.0.0.1:{server.port}"
    where = destination(server, scene)
    warm = {**where, "messages": 40, "sessions": min(4, scene.sessions)}
    if scene.kind != "relay":
        # A sink can be bound once only, so a relay is measured cold.
        load(place, "run", to=to, run=place.name_run(), **warm)
    before, loader = server.processor_seconds(), loader_seconds()
    result = load(
        place,
        "run",
        to=to,
        run=place.name_run(),
        sessions=scene.sessions,
        messages=scene.messages,
        per_session=scene.per_session,
        size=scene.size,
        tls=scene.tls,
        **where,
    )
    spent = server.processor_seconds() - before
    account(server, result)
    figures = {
        "value": result["messages"] / result["delivered_seconds"],
        "processor": spent / result["messages"] * 1000,
        "accept": result["messages"] / result["accept_seconds"],
        "again": result["failures"],
    }
    if scene.tls != "no":
        figures["loader"] = (loader_seconds() - loader) / result["messages"] * 1000
        figures["resumed"] = result["resumed"] / result["sessions"]
    return figures


def loader_seconds():
    """Processor time of all loaders that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def filtered(place, server, scene):
    """Messages delivered a second through a filter program, and their share of the rate without.

    Both listeners belong to one server, and take turns.
    """
    where = destination(server, scene)
    seconds = {server.port: 0, server.filtered_port: 0}
    for turn in range(FILTER_TURNS + 1):
        for port in seconds:
            result = load(
                place,
                "run",
                to=f"127.0.0.1:{port}",
                run=place.name_run(),
                sessions=scene.sessions,
                messages=scene.messages // FILTER_TURNS if turn else 40,
                size=scene.size,
                **where,
            )
            account(server, result)
            # The first turn only warms up.
            seconds[port] += result["delivered_seconds"] if turn else 0
    messages = scene.messages // FILTER_TURNS * FILTER_TURNS
    plain, through = (messages / took for took in seconds.values())
    return {"value": through, "plain": plain, "unfiltered": through / plain}


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


def idle_daemon(_place, server, _scene):
    """MiB of the idle daemon, and what it does; the time to its banner is noted for every start."""
    time.sleep(1)
    figures = {"rest": server.processor_share(2) * 100}
    memory = server.memory()
    return figures if memory is None else {**figures, "value": memory / MIB}


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
    "filtered": filtered,
    "idle daemon": idle_daemon,
    "idle sessions": crowds.idle_sessions,
    "large": large,
    "latency": latency,
    "maildir": throughput,
    "relay": throughput,
    "slow clients": crowds.slow_clients,
}


def raise_descriptor_limit():
    """As many descriptors as the system lets us have, for servers and loader."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in [max(most, DESCRIPTORS), most]:
        try:
            return resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except ValueError:
            pass  # not even root may raise it everywhere
