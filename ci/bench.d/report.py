"""The table: medians, spreads, ratios within rounds, targets."""

import math
import statistics

# What the figures beside the main one are, by name.
EXTRA = {
    "accept": "accepted/s",
    "again": "sessions tried again",
    "another": "one more session, ms",
    "append": "plain synced append, ms",
    "few": "with 1,000 deferred, /s",
    "known": "restart until all are known, s",
    "listing": "listing, s",
    "loader": "CPU s per 1,000 of the loader",
    "memory": "memory, MiB",
    "plain": "without the filter, /s",
    "over": "above the append, ms",
    "processor": "CPU s per 1,000",
    "resumed": "share of sessions that resumed",
    "rest": "% of a processor meanwhile",
    "restart": "restart to banner, s",
    "share": "share of the rate with 1,000",
    "slower": "times the time without slow clients",
    "slower_tail": "times the 99th percentile without slow clients",
    "start": "start to banner, s",
    "switches": "context switches",
    "tail": "99th percentile, ms",
    "unfiltered": "share of the rate without the filter",
    "usual": "without slow clients, ms",
    "usual_tail": "99th percentile without slow clients, ms",
}
# Figures told only where their scene is about them.
QUIET = {"start": "idle daemon", "accept": None}


def values(results, title, server, figure):
    """A figure of every round in which there is one."""
    rounds = results.get(title, {}).get(server, [])
    return [figures.get(figure) for figures in rounds]


def spread(found):
    """Median and, in brackets, least and most."""
    found = [value for value in found if value is not None]
    if not found:
        return "–"
    middle = short(statistics.median(found))
    if len(found) == 1:
        return middle
    return f"{middle} ({short(min(found))}–{short(max(found))})"


def short(value):
    """Three significant digits, without an exponent."""
    if math.isinf(value):
        return "not in time"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def ratios(results, title, figure, peer):
    """Pillarbox to a peer, round by round."""
    ours = values(results, title, "pillarbox", figure)
    theirs = values(results, title, peer, figure)
    return [a / b for a, b in zip(ours, theirs) if a is not None and b]


def show(chosen, servers, results):
    """Prints the tables; the number of targets that are missed."""
    print("\n| server | what is durable when |\n|---|---|")
    for server in servers:
        print(f"| {server.label} | {server.durability} |")
    peers = [server for server in servers if server.name != "pillarbox"]
    together = peers and len(peers) < len(servers)
    print("\n| | " + " | ".join(server.label for server in servers), end=" |")
    print("".join(f" to {peer.label} |" for peer in peers) if together else "")
    print("|---|" + "---|" * (len(servers) + (len(peers) if together else 0)))
    for scene in chosen:
        extras = [name for name in EXTRA if QUIET.get(name, scene.kind) == scene.kind]
        for figure in ["value", *extras]:
            columns = [values(results, scene.title, server.name, figure) for server in servers]
            if not any(value is not None for column in columns for value in column):
                continue
            if figure == "again" and not any(value for column in columns for value in column):
                continue
            unit = scene.unit if figure == "value" else EXTRA[figure]
            row = [f"{scene.title}: {unit}", *map(spread, columns)]
            if together:
                row += [spread(ratios(results, scene.title, figure, peer.name)) for peer in peers]
            print("| " + " | ".join(row) + " |")
    return show_targets(chosen, results)


def show_targets(chosen, results):
    """Prints which targets are met; the number of those that are not."""
    lines = []
    missed = 0
    for scene in chosen:
        for figure, peer, relation, target in scene.targets:
            if peer is None:
                found = values(results, scene.title, "pillarbox", figure)
                found = [value for value in found if value is not None]
                what = EXTRA.get(figure, scene.unit) if figure != "value" else scene.unit
            else:
                found = ratios(results, scene.title, figure, peer)
                what = f"{EXTRA.get(figure, scene.unit)}, ratio to {peer}"
            if not found:
                continue
            middle = statistics.median(found)
            met = middle >= target if relation == ">=" else middle <= target
            missed += not met
            sign = "≥" if relation == ">=" else "≤"
            verdict = "met" if met else "**missed**"
            lines.append(f"| {scene.title}: {what} | {sign} {target} | {spread(found)} | {verdict} |")
    if lines:
        print("\n| target | at | measured | |\n|---|---|---|---|")
        print("\n".join(lines))
    return missed
