"""chasquid as a server under test: a handshake of Go beside those of OpenSSL and rustls.

It runs under a user of its own, and procmail, which it starts for each message, writes the Maildirs.
"""

from peers import FIRST_UID, MAILBOXES
from servers import DOMAIN, Server

HOME = "/opt/chasquid"


class Chasquid(Server):
    name = "chasquid"
    label = "chasquid 1.11"
    durability = "nothing synced before 250, nor in the mailbox"
    always_certified = True

    def configure(self, scene):
        conf = self.work / "conf"
        lines = [
            'hostname: "mx.bench.local"',
            f'smtp_address: "127.0.0.1:{self.port}"',
            'data_dir: "/bench/spool"',
            "max_data_size_mb: 100",
            'mail_log_path: "/dev/null"',
            f'mail_delivery_agent_bin: "{HOME}/usr/bin/procmail"',
            # Its rules may belong to nobody else if it is told where they are.
            'mail_delivery_agent_args: "-m"',
            'mail_delivery_agent_args: "USER=%to_user%"',
            'mail_delivery_agent_args: "/bench/conf/procmailrc"',
        ]
        (conf / "chasquid.conf").write_text("\n".join(lines) + "\n")
        (conf / "procmailrc").write_text(":0\n/bench/mail/$USER/\n")
        certificates = conf / "certs/mx.bench.local"
        certificates.mkdir(parents=True)
        (conf / "cert.pem").rename(certificates / "fullchain.pem")
        (conf / "key.pem").rename(certificates / "privkey.pem")
        domain = conf / "domains" / DOMAIN
        domain.mkdir(parents=True)
        # Users whose password is nothing's hash.
        password = 'scrypt: { logN: 14 r: 8 p: 1 keyLen: 32 salt: "none" encrypted: "none" }'
        users = (
            f'users: {{ key: "u{number}" value: {{ {password} }} }}\n' for number in range(MAILBOXES)
        )
        (domain / "users").write_text("".join(users))
        for path in [self.work / "spool", certificates / "privkey.pem"]:
            self.own(path, FIRST_UID)

    def enter(self):
        return f"chroot --userspec={FIRST_UID}:{FIRST_UID} {self.root}"

    def command(self):
        return f"{HOME}/usr/bin/chasquid -config_dir=/bench/conf"
