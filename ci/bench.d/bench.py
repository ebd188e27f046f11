"""The whole-server benchmark: interleaved rounds, ratios of one run, every message counted.

Each round runs every scene against every server, the order of servers rotated by one, so that all
meet the same moods of machine and disk. Ratios are taken within a round; the table shows medians
and, in brackets, the spread over the rounds. Exit status: 0 if every message arrived once and
undamaged and, with --check, every target is met.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import config
import loads
import report
import scenes
from catalogue import catalogue
from chasquid import Chasquid
from peers import Roots, default_cache
from pillarbox import Pillarbox
from servers import Exim, Failed, OpenSmtpd, Postfix

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent


def arguments():
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Pillarbox alone, in seconds")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    parser.add_argument("--rounds", type=int, default=None, help="default 5, quick 1")
    parser.add_argument("--servers", default=None, help="comma list, default all")
    parser.add_argument(
        "--scenes", action="append", help="only scenes whose title has this; may be repeated"
    )
    parser.add_argument("--binaries", default=None, help="directory of built programs")
    parser.add_argument("--disk", default=None, help="directory on a disk, default target/bench")
    parser.add_argument("--cache", default=None, help="where the peers' roots are kept")
    parser.add_argument("--json", default=None, help="file for all single figures")
    return parser.parse_args()


def build_loader():
    """Builds the loader; its path."""
    target = TOP / "target/bench-loader"
    manifest = HERE / "loader/Cargo.toml"
    command = ["cargo", "build", "--quiet", "--release", "--manifest-path", manifest]
    subprocess.run([*command, "--target-dir", target], check=True)
    return str(target / "release/loader")


def build_programs():
    """Builds Pillarbox for release; the directory of its programs."""
    command = ["cargo", "build", "--quiet", "--release", "--bins"]
    subprocess.run(command, cwd=TOP, check=True)
    return TOP / "target/release"


def chosen_servers(options):
    """The servers that take part, peers only where they can be."""
    wanted = options.servers or ("pillarbox" if options.quick else "")
    wanted = wanted.split(",") if wanted else ["pillarbox", "postfix", "opensmtpd", "exim", "chasquid"]
    if os.geteuid() != 0 and any(name != "pillarbox" for name in wanted):
        print("not root: peers are left out, since they need roots of their own")
        wanted = [name for name in wanted if name == "pillarbox"]
    cache = options.cache or default_cache()
    roots = Roots(cache)
    makers = {
        "pillarbox": lambda: Pillarbox(options.binaries or build_programs()),
        "postfix": lambda: Postfix(roots.bookworm()),
        "opensmtpd": lambda: OpenSmtpd(roots.sid()),
        "exim": lambda: Exim(roots.bookworm()),
        "chasquid": lambda: Chasquid(roots.chasquid()),
    }
    return [makers[name]() for name in wanted]


def measure_all(place, servers, chosen, rounds):
    """All figures: scene, server, round."""
    results = {}
    failures = []
    for number in range(rounds):
        turned = servers[number % len(servers) :] + servers[: number % len(servers)]
        for scene in chosen:
            for server in turned:
                if number >= scene.rounds or (scene.only and server.name not in scene.only):
                    continue
                try:
                    figures = scenes.drive(place, server, scene)
                except Failed as failure:
                    failures.append(str(failure))
                    print(f"FAILED {failure}", flush=True)
                    figures = {}
                results.setdefault(scene.title, {}).setdefault(server.name, []).append(figures)
                shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                print(f"round {number + 1}: {scene.title}: {server.label}: {shown}", flush=True)
    return results, failures


def disk_for_everyone():
    """A directory on a disk that servers reach under users of their own: `target/bench`, unless the
    repository is in a home that is closed to others."""
    inside = TOP / "target/bench"
    is_open = all(directory.stat().st_mode & 0o001 for directory in [TOP, *TOP.parents])
    return str(inside) if is_open or os.geteuid() != 0 else "/var/tmp"


def spread(directory):
    """Asks ext4 to put each directory made in this one into a region of its own."""
    asked = subprocess.run(["chattr", "+T", directory], stderr=subprocess.PIPE)
    if asked.returncode != 0:
        print("runs on the disk share a region of it: chattr +T is not known there", flush=True)


def interrupted(*_):
    """Ends like Ctrl-C does, so that what was started is ended too."""
    raise KeyboardInterrupt


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    scenes.raise_descriptor_limit()
    rounds = options.rounds or (1 if options.quick else 5)
    parts = options.scenes or [""]
    chosen = [
        scene
        for scene in catalogue(options.quick)
        if any(part in scene.title for part in parts)
    ]
    servers = chosen_servers(options)
    loader = build_loader()
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    on_disk = options.disk or disk_for_everyone()
    Path(on_disk).mkdir(parents=True, exist_ok=True)
    tmpfs = tempfile.mkdtemp(prefix="pillarbox-bench.", dir=shared)
    disk = tempfile.mkdtemp(prefix="pillarbox-bench.", dir=on_disk)
    for directory in [tmpfs, disk]:
        os.chmod(directory, 0o755)
    spread(disk)
    try:
        place = loads.Place(loader, tmpfs, disk)
        results, failures = measure_all(place, servers, chosen, rounds)
    finally:
        shutil.rmtree(tmpfs, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    missed = report.show(chosen, servers, results)
    for server in servers:
        if server.name == "pillarbox" and not options.scenes:
            over = config.measure(server.binaries / "smtpd")
            print("\n".join(over), end="\n" if over else "")
            missed = missed or over
    if failures:
        print(f"\n{len(failures)} measurements failed; the first:\n{failures[0]}")
    return 1 if failures or (options.check and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
