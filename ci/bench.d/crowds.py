"""Many clients at once that do next to nothing: what they cost, and what others notice of them."""

import json
import math
import time

from loads import MIB, account, destination, load, waiting
from servers import Failed

# Source addresses that a crowd comes from.
SOURCES = 200
# How often the measurements with and without slow clients take turns.
TURNS = 2


def idle_sessions(place, server, scene):
    """KiB that each idle session takes, MiB of the server that holds them, what it does
    meanwhile, and the time of one more."""
    before = server.memory()
    to = f"127.0.0.1:{server.port}"
    crowd = {"sessions": scene.sessions, "sources": SOURCES, "tls": scene.tls}
    with waiting(place, "idle", to=to, **crowd) as idle:
        time.sleep(1)
        after, share = server.memory(), server.processor_share(2)
        said, _ = idle.communicate(b"\n", timeout=300)
    result = json.loads(said)
    if result["sessions"] != scene.sessions:
        raise Failed(f"only {result['sessions']} sessions stayed")
    figures = {"another": result["another_seconds"] * 1000, "rest": share * 100}
    if before is not None and after is not None:
        figures["value"] = max(0, after - before) / scene.sessions / 1024
        figures["memory"] = after / MIB
    return figures


def slow_clients(place, server, scene):
    """What clients that say a byte a second do to the others.

    The others are a few that send one message a session as fast as they are served. Their time runs
    from the first packet to the reply to the message. With and without slow clients take turns.
    """
    alone, among = [], []
    again = 0
    for _ in range(TURNS):
        alone.append(others(place, server, scene))
        to = f"127.0.0.1:{server.port}"
        crowd = {"sessions": scene.sessions, "sources": SOURCES, "slow_in": scene.slow}
        with waiting(place, "slow", to=to, **crowd) as slow:
            # Until each has said something.
            time.sleep(1.5)
            among.append(others(place, server, scene))
            said, stopped = slow.communicate(timeout=300)
        if slow.returncode != 0:
            raise Failed(f"slow clients: {stopped.decode(errors='replace')}")
        again += json.loads(said)["again"]
    usual, slowed = middle(alone, "median"), middle(among, "median")
    usual_tail, slowed_tail = middle(alone, "p99"), middle(among, "p99")
    return {
        "value": slowed * 1000,
        "usual": usual * 1000,
        "tail": slowed_tail * 1000,
        "usual_tail": usual_tail * 1000,
        "slower": slowed / usual,
        "slower_tail": slowed_tail / usual_tail,
        "again": again,
    }


def others(place, server, scene):
    """A run of ordinary clients."""
    result = load(
        place,
        "run",
        to=f"127.0.0.1:{server.port}",
        run=place.name_run(),
        sessions=2,
        messages=scene.messages,
        tls=scene.tls,
        **destination(server, scene),
    )
    account(server, result)
    return result


def middle(results, quantile):
    """The geometric mean of a quantile over some runs."""
    times = [result[f"opening_{quantile}"] for result in results]
    return math.prod(times) ** (1 / len(times))
