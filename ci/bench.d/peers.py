"""Fetches the peers: Debian roots of their own, in a cache directory, nothing installed outside.

Postfix, Exim and chasquid come from Debian 12 (bookworm), OpenSMTPD from Debian unstable (sid), since
12 has 6.8 only. A root is made with debootstrap, which is itself unpacked into the cache where the system
has none. Needs root, for chroot(2), and Debian's archive key.

Run as a program it fetches what the tests need: the root of Debian 12, whose programs they exchange
mail with, and two of Debian unstable: one with table programs and the servers that those ask, one
with programs that look for weaknesses of TLS.
"""

import os
import shutil
import subprocess
from pathlib import Path

# What the root of Debian 12 has besides Exim, which excludes Postfix: for benchmark and tests.
BOOKWORM = "postfix dovecot-lmtpd python3 swaks"
SID = "opensmtpd ca-certificates"
# Table programs of OpenSMTPD, and the servers that hold their tables.
TABLES = " ".join(
    [f"opensmtpd-table-{name}" for name in "ldap mysql passwd postgres redis socketmap sqlite".split()]
    + "ldap-utils mariadb-server postgresql redis-server redis-tools slapd sqlite3".split()
)
# Programs that look for weaknesses of TLS; those of Debian 12 give no grades yet.
SCANNERS = "socat sslscan testssl.sh"
# Filters of OpenSMTPD, what they ask, and what looks at their signatures.
FILTERS = " ".join(
    [f"opensmtpd-filter-{name}" for name in "dkimsign rspamd senderscore".split()]
    + "openssl python3 python3-dkim rspamd".split()
)
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


def default_cache():
    """Where the roots are kept if nothing else is said."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "pillarbox-bench")


def mirror():
    """Where this machine gets Debian's packages from."""
    wanted = ["Created-By: Packages", "Origin: Debian", "Codename: bookworm"]
    return run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).split()[0]


class Roots:
    """The cache and the roots in it."""

    def __init__(self, cache):
        self.cache = Path(cache)

    def bookworm(self):
        """The root with Postfix, and Exim under /opt/exim beside it (they exclude each other)."""
        return self._root("bookworm", "bookworm", BOOKWORM, self._unpack_exim)

    def chasquid(self):
        """The root of Debian 12, with chasquid under /opt/chasquid and what it delivers with."""
        root = self.bookworm()
        ready = self.cache / "chasquid.ready"
        if not ready.exists() or not (root / "opt/chasquid").exists():
            print(f"fetching chasquid into {root} (once)", flush=True)
            self._chroot(
                root,
                """
                apt-get update
                mkdir -p /opt/chasquid && cd /opt
                apt-get download chasquid procmail
                for package in chasquid_*.deb procmail_*.deb; do dpkg -x "$package" chasquid; done
                useradd --system --no-create-home chasquid
                """,
            )
            ready.touch()
        return root

    def scanners(self):
        """The root with sslscan and testssl.sh."""
        return self._root("scanners", "sid", SCANNERS, lambda root: None)

    def sid(self):
        """The root with OpenSMTPD."""
        return self._root("sid", "sid", SID, lambda root: None)

    def tables(self):
        """The root with table programs and their servers."""
        return self._root("tables", "sid", TABLES, lambda root: None)

    def filters(self):
        """The root with filters."""
        return self._root("filters", "sid", FILTERS, lambda root: None)

    def _root(self, name, suite, packages, install_more):
        root = self.cache / name
        ready = self.cache / f"{name}.ready"
        if ready.exists() and ready.read_text() == packages:
            return root
        ready.unlink(missing_ok=True)
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
        command = [debootstrap, "--variant=minbase", suite, root, mirror()]
        run(command, env=environment)
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")  # packages start nothing
        policy.chmod(0o755)
        self._chroot(root, f"apt-get install -y --no-install-recommends {packages}")
        install_more(root)
        self._chroot(root, "apt-get clean")
        self._settle(root)
        ready.write_text(packages)
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
        """Runs a script in a root, with what some packages want to see while they are installed, and
        with the name servers of this machine, which a settled root does not know."""
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        enter = """
            mount -t proc proc "$0/proc"
            for file in /etc/resolv.conf /etc/hosts; do
                if [ -e "$file" ] && [ -e "$0$file" ]; then mount --bind "$file" "$0$file"; fi
            done
            exec chroot "$0" sh -ec "$1"
        """
        words = ["unshare", "--mount", "sh", "-ec", enter, root, script]
        return run(words, env=environment)

    def _unpack_exim(self, root):
        self._chroot(
            root,
            """
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


if __name__ == "__main__":
    ROOTS = Roots(default_cache())
    ROOTS.bookworm()
    ROOTS.tables()
    ROOTS.scanners()
    ROOTS.filters()
