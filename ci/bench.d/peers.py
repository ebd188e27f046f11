"""Fetches the peers: Debian roots of their own, in a cache directory, nothing installed outside.

Postfix and Exim come from Debian 12 (bookworm), OpenSMTPD from Debian unstable (sid), since 12 has
6.8 only. A root is made with debootstrap, which is itself unpacked into the cache where the system
has none. Needs root, for chroot(2), and Debian's archive key.
"""

import os
import shutil
import subprocess
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
# Users of local deliveries inside the roots.
FIRST_UID = 5000
MAILBOXES = 10


def run(command, **options):
    """Runs a command quietly; what it said is shown only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace")
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{said[-2000:]}")
    return done.stdout.decode(errors="replace")


class Roots:
    """The cache and the roots in it."""

    def __init__(self, cache):
        self.cache = Path(cache)

    def bookworm(self):
        """The root with Postfix, and Exim under /opt/exim beside it (they exclude each other)."""
        return self._root("bookworm", self._install_postfix_and_exim)

    def sid(self):
        """The root with OpenSMTPD."""
        return self._root("sid", self._install_opensmtpd)

    def _root(self, suite, install):
        root = self.cache / suite
        ready = self.cache / f"{suite}.ready"
        if ready.exists():
            return root
        print(f"fetching Debian {suite} into {root} (once)", flush=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        if root.exists():
            shutil.rmtree(root)
        environment = dict(os.environ)
        debootstrap = shutil.which("debootstrap")
        if debootstrap is None:
            tool = self._unpacked_debootstrap()
            debootstrap = tool / "usr/sbin/debootstrap"
            environment["DEBOOTSTRAP_DIR"] = str(tool / "usr/share/debootstrap")
        command = [debootstrap, "--variant=minbase", suite, root, MIRROR]
        run(command, env=environment)
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")  # packages start nothing
        policy.chmod(0o755)
        install(root)
        self._settle(root)
        ready.touch()
        return root

    def _unpacked_debootstrap(self):
        tool = self.cache / "debootstrap"
        if not tool.exists():
            run(["apt-get", "download", "debootstrap"], cwd=self.cache)
            package = next(self.cache.glob("debootstrap_*.deb"))
            run(["dpkg", "-x", package, tool])
        return tool

    @staticmethod
    def _chroot(root, script):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        return run(["chroot", root, "sh", "-ec", script], env=environment)

    def _install_opensmtpd(self, root):
        self._chroot(root, "apt-get install -y --no-install-recommends opensmtpd ca-certificates")

    def _install_postfix_and_exim(self, root):
        self._chroot(
            root,
            """
            apt-get install -y --no-install-recommends postfix
            depends=$(apt-cache depends exim4-daemon-light exim4-base |
                sed -n 's/^ *Depends: //p' | grep -v '^<\\|exim\\|debconf\\|cron\\|mail-transport' |
                sort -u)
            apt-get install -y --no-install-recommends $depends
            mkdir -p /opt/exim && cd /opt
            apt-get download exim4-daemon-light exim4-base
            for package in exim4-*.deb; do dpkg -x "$package" exim; done
            useradd --system --no-create-home Debian-exim
            """,
        )

    def _settle(self, root):
        """Users for deliveries, and no name service that could be asked."""
        users = "\n".join(
            f"useradd -u {FIRST_UID + n} -M -d /bench/home/u{n} u{n}" for n in range(MAILBOXES)
        )
        self._chroot(root, users)
        for directory in ["bench", "etc/exim4", "var/spool/smtpd"]:
            (root / directory).mkdir(parents=True, exist_ok=True)
        (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
