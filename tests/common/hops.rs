//! Postfix and Exim as hops: each takes mail at one address of loopback, and sends some of it on to
//! another.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};

use tempfile::TempDir;

use super::account::open_directory;
use super::peers::{PeerServer, Peers};

/// Where Postfix is in its root.
pub const POSTFIX: &str = "/usr/sbin/postfix";
/// Where Exim is in its root.
pub const EXIM: &str = "/opt/exim/usr/sbin/exim4";

/// A hop. Its directory is `/mnt` for itself.
pub struct Hop<'a> {
    /// Name of its transcript.
    pub name: &'a str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it sends what is for `returns`.
    pub back: SocketAddr,
    /// Domain of what it sends on.
    pub returns: &'a str,
    /// Domain of what it keeps, in the Maildir `mail/all` of its directory.
    pub keeps: Option<&'a str>,
    /// Further lines of its main settings.
    pub settings: &'a str,
}

impl Hop<'_> {
    /// Starts it as Postfix; its messages under way are in `spool`.
    pub fn postfix(&self, peers: &Peers) -> PeerServer {
        let uid = peers.uid("postfix");
        let work = directory(&["data", "mail"], uid);
        fs::create_dir(work.path().join("spool")).unwrap();
        let keeps = self.keeps.map_or_else(String::new, |domain| {
            format!(
                "virtual_mailbox_domains = {domain}\nvirtual_mailbox_base = /mnt/mail\n\
                 virtual_mailbox_maps = static:all/\nvirtual_minimum_uid = 1\n\
                 virtual_uid_maps = static:{uid}\nvirtual_gid_maps = static:{uid}\n"
            )
        });
        let settings = format!(
            "compatibility_level = 3.6\nqueue_directory = /mnt/spool\ndata_directory = /mnt/data\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
             maillog_file = /mnt/log\nmaillog_file_prefixes = /var, /mnt, /dev\n\
             myhostname = postfix.example\nmydestination =\nmynetworks = 127.0.0.0/8\n\
             inet_interfaces = {}\ninet_protocols = ipv4\nsmtpd_peername_lookup = no\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n\
             relay_domains = {}\nrelayhost = [{}]:{}\n{keeps}{}",
            self.address.ip(),
            self.returns,
            self.back.ip(),
            self.back.port(),
            self.settings
        );
        fs::write(work.path().join("main.cf"), settings).unwrap();
        let services = format!(
            "{} inet n - n - - smtpd\npickup unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nflush unix n - n - 0 flush\n\
             proxymap unix - - n - - proxymap\nsmtp unix - - n - - smtp\nrelay unix - - n - - smtp\n\
             virtual unix - n n - - virtual\nerror unix - - n - - error\nretry unix - - n - - error\n\
             anvil unix - - n - 1 anvil\nscache unix - - n - 1 scache\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\npostlog unix-dgram n - n - 1 postlogd\n",
            self.address
        );
        fs::write(work.path().join("master.cf"), services).unwrap();
        peers.serve(self.name, work, &[POSTFIX, "-c", "/mnt", "start-fg"], self.address)
    }

    /// Starts it as Exim; its messages under way are in `spool/input`.
    pub fn exim(&self, peers: &Peers) -> PeerServer {
        let work = directory(&["logs", "spool", "mail"], peers.uid("Debian-exim"));
        let keeps = self.keeps.map_or_else(String::new, |domain| {
            format!("keeps:\n driver = accept\n domains = {domain}\n transport = maildir\n")
        });
        let config = format!(
            "primary_hostname = exim.example\nexim_path = {EXIM}\nspool_directory = /mnt/spool\n\
             log_file_path = /mnt/logs/%slog\npid_file_path = /mnt/exim.pid\n\
             local_interfaces = {}\ndaemon_smtp_ports = {}\ntls_advertise_hosts =\nhost_lookup =\n\
             rfc1413_query_timeout = 0s\ncheck_spool_space = 0\ncheck_log_space = 0\n\
             keep_environment =\nacl_smtp_rcpt = accept\nacl_smtp_data = accept\n{}\n\
             begin routers\n{keeps}back:\n driver = manualroute\n domains = {}\n\
             \x20route_list = * {}\n self = send\n transport = smtp\n\n\
             begin transports\nmaildir:\n driver = appendfile\n maildir_format\n\
             \x20directory = /mnt/mail/all\n user = Debian-exim\n\
             smtp:\n driver = smtp\n port = {}\n allow_localhost\n\
             \x20hosts_avoid_tls = *\n message_linelength_limit = 1M\n\n\
             begin retry\n* * F,4d,15m\n",
            self.address.ip(),
            self.address.port(),
            self.settings,
            self.returns,
            self.back.ip(),
            self.back.port()
        );
        fs::create_dir(work.path().join("etc")).unwrap();
        let path = work.path().join("etc/exim4.conf");
        fs::write(&path, config).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Only a configuration in its own place lets it keep root's rights.
        let script =
            format!("mkdir -p /etc/exim4 && mount --bind /mnt/etc /etc/exim4 && exec {EXIM} -bdf");
        peers.serve(self.name, work, &["sh", "-c", &script], self.address)
    }
}

/// A directory with others in it that belong to the hop.
fn directory(names: &[&str], uid: u32) -> TempDir {
    let work = open_directory();
    for name in names {
        let path = work.path().join(name);
        fs::create_dir(&path).unwrap();
        chown(path, Some(uid), Some(uid)).unwrap();
    }
    work
}
