"""How long `smtpd -n` takes for large configurations, and how much memory.

Alone: config.py PROGRAM. The targets are those of docs/performance.md: 10,000 rules together with a
table file of 100,000 entries in half a second and 60 MiB.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 0.5
MEBIBYTES = 60
ROUNDS = 5


def rules(count):
    """Rules of several shapes, with a hundredth as many actions."""
    lines = ["table ours { a.example, b.example }", "table users file:{directory}/users"]
    for number in range(count // 100):
        lines.append(f'action "a{number}" maildir "/mail/{number}" alias <users>')
    for number in range(count):
        action = f"action a{number // 100}"
        lines.append(
            [
                f"match from any for domain d{number}.example {action}",
                f"match from src 10.0.{number // 100}.0/24 for any {action}",
                f'match tag t{number} mail-from "@d{number}.example" for domain <ours> reject',
                f'match !from local for domain regex "^x{number}[.]" reject',
            ][number % 4]
        )
    return "\n".join(lines) + "\n"


def check(program, configuration):
    """Seconds and MiB that one check takes."""
    began = time.monotonic()
    child = subprocess.Popen([program, "-n", "-f", configuration], stderr=subprocess.PIPE)
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if child.returncode != 0 or "configuration OK" not in said:
        raise RuntimeError(f"{program} -n: {said}")
    return seconds, usage.ru_maxrss / 1024


def measure(program):
    """Prints the best of some checks; what is above its target."""
    with tempfile.TemporaryDirectory(prefix="pillarbox-bench.") as directory:
        place = Path(directory)
        entries = (f"user{number}: box{number}\n" for number in range(100_000))
        (place / "users").write_text("".join(entries))
        configuration = place / "smtpd.conf"
        configuration.write_text(rules(10_000).replace("{directory}", directory))
        found = [check(program, configuration) for _ in range(ROUNDS)]
    seconds = min(seconds for seconds, _ in found)
    memory = max(memory for _, memory in found)
    print(f"smtpd -n, 10,000 rules and 100,000 entries: {seconds:.3f} s, {memory:.1f} MiB")
    targets = [("s", seconds, SECONDS), ("MiB", memory, MEBIBYTES)]
    over = [(unit, value, most) for unit, value, most in targets if value > most]
    return [f"smtpd -n: {value:.3g} {unit}, target {most}" for unit, value, most in over]


if __name__ == "__main__":
    missed = measure(sys.argv[1])
    print("\n".join(missed), end="\n" if missed else "")
    sys.exit(1 if missed else 0)
