"""Pillarbox as a server under test: rootless, with `--state`, as an ordinary user would start it.

When root runs the benchmark it is started as the user nobody, in a process namespace like its
peers; otherwise as the caller, and its processes are found as descendants.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import measure
from servers import DOMAIN, REFUSED, Server, listeners
from peers import MAILBOXES

PROGRAMS = ["smtpd", "smtpctl"]


class Pillarbox(Server):
    name = "pillarbox"
    label = "Pillarbox"
    durability = "one shared sync before 250, mailbox file and directory synced"

    def __init__(self, binaries):
        super().__init__()
        self.binaries = Path(binaries)
        root = os.geteuid() == 0
        self.account = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())

    def configure(self, scene):
        # The user must be able to reach the programs, wherever they were built.
        for program in PROGRAMS:
            if (self.binaries / program).exists():
                shutil.copy2(self.binaries / program, self.work / "bin")
        state = self.work / "state"
        state.mkdir(mode=0o700)
        port = scene.sink or REFUSED
        user = self.account.pw_name
        boxes = ", ".join(f'"u{n}" = "{user}"' for n in range(MAILBOXES))
        lines = [
            "smtp max-message-size 100M",
            "smtp limit max-mails 100000",
            "scheduler limit max-inflight 50000",
            "mda limit max-session 200",
            "mda limit max-session-per-user 100",
            "mta limit max-conn-per-host 100",
            "mta limit max-conn-per-route 100",
            "mta limit max-conn-per-source 100",
            "mta limit max-conn-per-connector 100",
            "mta limit conn-delay-route 0",
            "mta limit conn-delay-relay 0",
            "mta limit reconn-delay-route 0",
            f"table boxes {{ {boxes} }}",
            *listeners(self, self.work),
            f'action "local" maildir "{self.work}/mail/%{{rcpt.user}}" virtual <boxes>',
            f'action "out" relay host smtp+notls://127.0.0.1:{port}',
            f'match from any for domain "{DOMAIN}" action "local"',
            'match from any for any action "out"',
        ]
        conf = self.work / "conf/smtpd.conf"
        conf.write_text("\n".join(lines) + "\n")
        owned = [state, self.work / "mail"]
        if self.certified:
            owned.append(self.work / "conf/key.pem")
        for path in owned:
            if os.geteuid() == 0:
                os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def script(self):
        ids = f"--reuid={self.account.pw_uid} --regid={self.account.pw_gid} --clear-groups"
        become = f"setpriv {ids}" if os.geteuid() == 0 else ""
        daemon = f"{self.work}/bin/smtpd -d -f {self.work}/conf/smtpd.conf"
        proc = "mount -t proc proc /proc\n" if os.geteuid() == 0 else ""
        return proc + self.launch(f"{become} {daemon} --state {self.work}/state")

    def pids(self):
        if os.geteuid() == 0:
            return super().pids()
        return measure.descendants(self.process.pid) if self.process else []

    def main_pid(self):
        if os.geteuid() == 0:
            return super().main_pid()
        return min(pid for pid in self.pids() if pid != self.process.pid)

    def stop(self, gently=False):
        if os.geteuid() != 0 and not gently and self.process is not None:
            # Without a namespace that ends with it, every process is ended by its number.
            for pid in sorted(self.pids()):
                if pid != self.process.pid and measure.stat(pid) is not None:
                    os.kill(pid, 9)
        super().stop(gently)

    def control(self, *words):
        """What `smtpctl` says."""
        command = [self.work / "bin/smtpctl", "--state", self.work / "state", *words]
        return subprocess.run(command, stdout=subprocess.PIPE, timeout=900).stdout

    def list_queue(self):
        return self.control("show", "queue")

    def queued(self):
        for line in self.control("show", "stats").decode().splitlines():
            if line.startswith("scheduler.envelope="):
                return int(line.partition("=")[2])
        return 0
