"""The servers under test: how each is configured, started, asked, and ended.

Each runs with a directory of its own (spool, mailboxes, configuration) on tmpfs or disk, on
loopback ports, in a process and mount namespace of its own when root runs the benchmark: what it
mounts and whatever it starts goes away with it. Throttles of the peers are raised; what makes mail
durable is left as each package ships it and said in `durability`.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import measure
from peers import FIRST_UID, MAILBOXES

DOMAIN = "bench.test"
# A port on which nothing ever listens.
REFUSED = 1


class Failed(RuntimeError):
    """A server did not do what it must."""


def free_port():
    """A loopback port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listeners(server, work):
    """Lines of smtpd.conf: where the server listens, with what its scene needs; it sees its
    directory as `work`."""
    listen = f"listen on 127.0.0.1 hostname mx.bench.local port {server.port}"
    if server.certified:
        yield f'pki bench cert "{work}/conf/cert.pem"'
        yield f'pki bench key "{work}/conf/key.pem"'
        listen += " tls pki bench"
    yield listen
    if server.filtered_port:
        yield f'filter bench proc-exec "{work}/bin/loader filter"'
        yield f"listen on 127.0.0.1 port {server.filtered_port} filter bench"


class Server:
    """What all servers share. `work` is the directory of one start, removed at its end."""

    name = ""
    durability = ""
    # Command that lists the queue, in its root.
    listing = None
    # Whether it needs a certificate to start.
    always_certified = False

    def __init__(self, root=None):
        self.root = root
        self.process = None
        self.port = None
        self.identity = None
        self.group = None
        self.filtered_port = None
        self.certified = False

    def prepare(self, work, scene, loader):
        """Makes directories and configuration in a new `work`."""
        self.work = Path(work) / self.name
        if self.work.exists():
            shutil.rmtree(self.work)
        self.filtered_port, self.certified = None, False
        self.port = free_port()
        for directory in ["bin", "conf", "mail", "spool", "home"]:
            (self.work / directory).mkdir(parents=True)
        if self.always_certified or scene.tls != "no" or scene.slow == "handshake":
            self.make_certificate()
        if scene.kind == "filtered":
            shutil.copy2(loader, self.work / "bin/loader")
            self.filtered_port = free_port()
        for number in range(MAILBOXES):
            home = self.work / f"home/u{number}"
            home.mkdir()
            self.own(home, FIRST_UID + number)
        self.work.chmod(0o755)
        (self.work / "mail").chmod(0o1777)
        self.configure(scene)

    def make_certificate(self):
        """A key and a certificate of the kind that all servers use: ECDSA with P-256."""
        self.certified = True
        key, certificate = self.work / "conf/key.pem", self.work / "conf/cert.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        command += ["-nodes", "-keyout", key, "-out", certificate, "-days", "30"]
        subprocess.run([*command, "-subj", "/CN=mx.bench.local"], check=True, capture_output=True)
        key.chmod(0o600)

    def own(self, path, uid):
        """Gives a path to a user, where there is a choice."""
        if os.geteuid() == 0:
            os.chown(path, uid, uid)

    def configure(self, scene):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def mounts(self):
        """Pairs of a directory and the place in the root where the server looks for it."""
        return [(self.work, "bench")]

    def script(self):
        """Shell commands that make the namespace and start the server in it."""
        lines = ["set -e"]
        for source, target in self.mounts():
            lines.append(f"mount --bind {source} {self.root}/{target}")
        lines += [
            f"mount -t proc proc {self.root}/proc",
            f"mount --rbind /dev {self.root}/dev",
            f"mount -t tmpfs tmpfs {self.root}/run",
            self.launch(f"{self.enter()} {self.command()}"),
        ]
        return "\n".join(lines)

    def enter(self):
        """The command that enters the root, as the user that the server is started as."""
        return f"chroot {self.root}"

    @staticmethod
    def launch(command):
        """Says that all is ready, waits for the word, and starts the server.

        The shell stays: it reaps what the server leaves behind, and its time is counted.
        """
        return f"echo ready >&2\nread go\n{command} < /dev/null >> log 2>&1 &\nwait $!"

    def start(self):
        """Starts the server; the seconds until its banner came."""
        self.group = measure.ControlGroup.create(self.name)
        join = f"echo $$ > {self.group.path}/cgroup.procs; " if self.group else ""
        self.process = subprocess.Popen(
            ["sh", "-c", f'{join}exec {self.isolation()} sh -c "$0"', self.script()],
            cwd=self.work,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if self.process.stderr.readline() != b"ready\n":
            raise Failed(self.process.stderr.read().decode(errors="replace"))
        if self.isolation():
            # The namespace is that of the child of unshare, its first process.
            pids = measure.descendants(self.process.pid)
            self.identity = measure.namespace(pids[1])
        begin = time.monotonic()
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()
        self.wait_for_banner(60)
        return time.monotonic() - begin

    @staticmethod
    def isolation():
        """What puts the server into namespaces of its own; nothing for an ordinary user."""
        return "unshare --mount --pid --fork --kill-child=KILL" if os.geteuid() == 0 else ""

    def wait_for_banner(self, patience):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended at once:\n{self.log()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), 30) as peer:
                    peer.settimeout(30)
                    if peer.recv(512).startswith(b"220"):
                        peer.sendall(b"QUIT\r\n")
                        return
            except OSError:
                pass
            time.sleep(0.001)
        raise Failed(f"{self.name} does not answer:\n{self.log()}")

    def log(self):
        """The end of what it logged."""
        return (self.work / "log").read_text(errors="replace")[-2000:]

    def pids(self):
        """All its processes."""
        return measure.members(self.identity)

    def processor_seconds(self):
        return self.group.seconds() if self.group else measure.processor_seconds(self.pids())

    def processor_share(self, seconds):
        """The share of one processor that it uses during so many seconds."""
        before, begin = self.processor_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.processor_seconds() - before) / (time.monotonic() - begin)

    def memory(self):
        return measure.memory(self.pids())

    def main_pid(self):
        """The process that ends the server when it is told to."""
        first = [pid for pid in self.pids() if measure.stat(pid)[1] == str(self.process.pid)]
        children = [pid for pid in self.pids() if int(measure.stat(pid)[1]) in first]
        return min(children)

    def stop(self, gently=False):
        """Ends it: `gently` by the signal that asks it to, and else at once."""
        if self.process is None:
            return
        if gently:
            os.kill(self.main_pid(), signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                pass
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        deadline = time.monotonic() + 10
        while self.identity and self.pids() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.group:
            self.group.remove()
        self.process = None

    def remove(self):
        """Removes its directory."""
        shutil.rmtree(self.work, ignore_errors=True)

    def clear_mail(self):
        """Empties the mailboxes, between two runs."""
        for mailbox in (self.work / "mail").iterdir():
            shutil.rmtree(mailbox)

    def inside(self, command):
        """Runs a command in the server's namespaces; its output."""
        first = [pid for pid in self.pids() if measure.stat(pid)[1] == str(self.process.pid)]
        enter = ["nsenter", f"--target={first[0]}", "--mount", "--pid", "chroot", str(self.root)]
        done = subprocess.run([*enter, *command], stdout=subprocess.PIPE, timeout=900)
        return done.stdout

    def list_queue(self):
        """The listing of its queue; None if it has no command for that."""
        return self.inside(self.listing) if self.listing else None

    def queued(self):
        """How many envelopes it says it has; None if it cannot tell."""
        return None


class Postfix(Server):
    name = "postfix"
    label = "Postfix 3.7"
    durability = "one fsync before 250, one per delivery"
    listing = ["postqueue", "-c", "/bench/conf", "-p"]

    def configure(self, scene):
        (self.work / "data").mkdir()
        accounts = self.root / "etc/passwd"
        uid = next(
            int(line.split(":")[2])
            for line in accounts.read_text().splitlines()
            if line.startswith("postfix:")
        )
        self.own(self.work / "data", uid)
        boxes = ", ".join(f"{{u{n}@{DOMAIN} = u{n}/}}" for n in range(MAILBOXES))
        port = scene.sink or REFUSED
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": "/bench/spool",
            "data_directory": "/bench/data",
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "myhostname": "mx.bench.local",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "smtpd_peername_lookup": "no",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "virtual_mailbox_domains": DOMAIN,
            "virtual_mailbox_base": "/bench/mail",
            "virtual_mailbox_maps": f"inline:{{ {boxes} }}",
            "virtual_mailbox_limit": "0",
            "virtual_uid_maps": f"static:{FIRST_UID}",
            "virtual_gid_maps": f"static:{FIRST_UID}",
            "message_size_limit": "104857600",
            "relayhost": f"[127.0.0.1]:{port}",
            # Throttles, raised.
            "default_process_limit": str(max(200, scene.sessions + 200)),
            "default_destination_concurrency_limit": "100",
            "initial_destination_concurrency": "50",
            "virtual_destination_concurrency_limit": "100",
            "smtp_destination_concurrency_limit": "100",
            "smtpd_client_connection_count_limit": "0",
            "smtpd_client_connection_rate_limit": "0",
            "in_flow_delay": "0",
        }
        if self.certified:
            settings |= {
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": "/bench/conf/cert.pem",
                "smtpd_tls_key_file": "/bench/conf/key.pem",
                "smtpd_tls_session_cache_database": "btree:/bench/data/sessions",
            }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.work / "conf/main.cf").write_text(text)
        services = [f"127.0.0.1:{self.port} inet n - n - - smtpd"]
        for line in [
            "pickup unix n - n 60 1 pickup",
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "flush unix n - n 1000? 0 flush",
            "proxymap unix - - n - - proxymap",
            "smtp unix - - n - - smtp",
            "relay unix - - n - - smtp",
            "showq unix n - n - - showq",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "discard unix - - n - - discard",
            "virtual unix - n n - - virtual",
            "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
        ]:
            services.append(line)
        (self.work / "conf/master.cf").write_text("\n".join(services) + "\n")

    def command(self):
        return "/usr/sbin/postfix -c /bench/conf start-fg"


class OpenSmtpd(Server):
    name = "opensmtpd"
    label = "OpenSMTPD 7.9"
    durability = "nothing synced before 250, nor in the mailbox"
    listing = ["smtpctl", "show", "queue"]

    def configure(self, scene):
        (self.work / "spool").chmod(0o711)
        port = scene.sink or REFUSED
        limits = [
            "conn-delay-host 0", "conn-delay-route 0", "conn-delay-source 0",
            "conn-delay-connector 0", "conn-delay-relay 0", "conn-delay-domain 0",
            "reconn-delay-route 0", "max-conn-per-host 100", "max-conn-per-route 100",
            "max-conn-per-source 100", "max-conn-per-connector 100", "max-conn-per-relay 100",
            "max-conn-per-domain 100", "session-transaction-delay 0", "task-hiwat 5000",
            "task-lowat 3000", "task-release 1000",
        ]  # fmt: skip
        lines = [
            "smtp max-message-size 100M",
            "smtp limit max-mails 100000",
            "scheduler limit max-inflight 50000",
            "scheduler limit max-schedule 1000",
            "mda limit max-session 200",
            "mda limit max-session-per-user 100",
            "mda limit task-hiwat 5000",
            "mda limit task-lowat 3000",
            "mda limit task-release 1000",
            *(f"mta limit {limit}" for limit in limits),
            *listeners(self, "/bench"),
            'action "local" maildir "/bench/mail/%{user.username}"',
            f'action "out" relay host smtp+notls://127.0.0.1:{port}',
            f'match from any for domain "{DOMAIN}" action "local"',
            'match from any for any action "out"',
        ]
        conf = self.work / "conf/smtpd.conf"
        conf.write_text("\n".join(lines) + "\n")
        conf.chmod(0o600)

    def mounts(self):
        return [*super().mounts(), (self.work / "spool", "var/spool/smtpd")]

    def command(self):
        return "/usr/sbin/smtpd -d -f /bench/conf/smtpd.conf"

    def queued(self):
        for line in self.inside(["smtpctl", "show", "stats"]).decode().splitlines():
            if line.startswith("scheduler.envelope="):
                return int(line.partition("=")[2])
        return 0


class Exim(Server):
    name = "exim"
    label = "Exim 4.96"
    durability = "header and data file synced before 250, mailbox file synced"

    def configure(self, scene):
        (self.work / "logs").mkdir()
        accounts = self.root / "etc/passwd"
        uid = next(
            int(line.split(":")[2])
            for line in accounts.read_text().splitlines()
            if line.startswith("Debian-exim:")
        )
        for directory in ["spool", "logs"]:
            self.own(self.work / directory, uid)
        port = scene.sink or REFUSED
        users = " : ".join(f"u{n}" for n in range(MAILBOXES))
        text = f"""
primary_hostname = mx.bench.local
exim_path = /opt/exim/usr/sbin/exim4
spool_directory = /bench/spool
log_file_path = /bench/logs/%slog
pid_file_path = /bench/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {self.port}
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
check_spool_space = 0
check_log_space = 0
message_size_limit = 100M
smtp_accept_max = {scene.sessions + 200}
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1000
keep_environment =
acl_smtp_rcpt = accept
acl_smtp_data = accept

begin routers
local:
  driver = accept
  domains = {DOMAIN}
  local_parts = {users}
  transport = maildir
out:
  driver = manualroute
  domains = ! {DOMAIN}
  route_list = * 127.0.0.1
  self = send
  transport = smtp

begin transports
maildir:
  driver = appendfile
  maildir_format
  directory = /bench/mail/$local_part_data
  user = {FIRST_UID}
  group = {FIRST_UID}
smtp:
  driver = smtp
  port = {port}
  allow_localhost
  hosts_avoid_tls = *

begin retry
* * F,4d,15m
"""
        conf = self.work / "conf/exim4.conf"
        conf.write_text(text)
        conf.chmod(0o640)

    def mounts(self):
        return [*super().mounts(), (self.work / "conf", "etc/exim4")]

    def command(self):
        return "/opt/exim/usr/sbin/exim4 -bdf"
