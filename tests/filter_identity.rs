//! As whom filter programs run, and where: users, groups and root directories of their own.
//!
//! Only root can start such programs; elsewhere these tests are skipped, with a printed reason.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::install::copy_program;
use common::peer::Peer;
use common::root::{ALICE, BOB, SMTPD};
use common::server::{Server, free_address};
use common::spec_case;

/// Says as whom it runs, and registers nothing.
const WHO: &str = "#!/bin/sh\n\
    echo \"$(id -u) $(id -G) $PATH $PWD ${PILLARBOX_LIBEXEC-clean}\" >\"$1\"\n\
    while read -r line && [ \"$line\" != \"config|ready\" ]; do :; done\n\
    echo \"register|ready\"\nwhile read -r line; do :; done\n";

#[test]
fn programs_of_a_root_server_run_as_the_configured_user_with_one_group() {
    let config = "filter a proc-exec \"filter-who @DIR@/mail/a\"\n\
                  filter b proc-exec \"filter-who @DIR@/mail/b\" user alice\n\
                  filter c proc-exec \"filter-who @DIR@/mail/c\" user alice group bob\n\
                  @LISTEN@ filter { a b c }\n\
                  action \"local\" mbox\nmatch for local action \"local\"\n";
    let started = Server::start_as_root_with(config, |directory| {
        let text = directory.join("filter-who");
        fs::write(&text, WHO).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        copy_program(&text, directory.join("libexec/opensmtpd/filter-who"));
    });
    let Some(server) = started else { return };
    Peer::greeted(server.address()).unwrap();
    for (name, user, group) in [("a", SMTPD, SMTPD), ("b", ALICE, ALICE), ("c", ALICE, BOB)] {
        let written = fs::read_to_string(server.path(&format!("mail/{name}"))).unwrap();
        let expected = format!("{user} {group} /usr/bin:/bin");
        assert!(written.starts_with(&expected), "{name}: {written}");
        assert!(written.ends_with(" / clean\n"), "{name}: {written}");
    }
    spec_case::ran("filter", 12);
}

/// A shell that can only become a filter, and that filter: it says as whom it runs and what it sees,
/// and refuses everybody. It needs nothing of the system, and so runs in an empty directory.
const JAILED: &str = r#"
#define _GNU_SOURCE
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char line[4096], session[17], token[17], directory[4096];
    if (argc == 3 && strncmp(argv[2], "exec ", 5) == 0) {
        execl(argv[2] + 5, argv[2] + 5, (char *)0);
        return 127;
    }
    gid_t groups[64];
    uid_t real, effective, saved;
    int count = getgroups(64, groups);
    getresuid(&real, &effective, &saved);
    FILE *told = fopen("/told/who", "w");
    if (told == NULL || getcwd(directory, sizeof directory) == NULL)
        return 1;
    fprintf(told, "%d %d %d %d", (int)real, (int)effective, (int)saved, (int)getgid());
    for (int group = 0; group < count; group++)
        fprintf(told, " +%d", (int)groups[group]);
    fprintf(told, " in %s", directory);
    fprintf(told, " %s passwd\n", access("/etc/passwd", F_OK) == 0 ? "sees" : "without");
    fclose(told);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strcmp(line, "config|ready\n") == 0)
            printf("register|filter|smtp-in|connect\nregister|ready\n");
        if (sscanf(line, "filter|%*[^|]|%*[^|]|smtp-in|connect|%16[^|]|%16[^|]|", session, token) == 2)
            printf("filter-result|%s|%s|reject|550 said inside\n", session, token);
        fflush(stdout);
    }
    return 0;
}
"#;

/// Makes a root directory with the jailed filter in it; false where such a program cannot be made.
fn fill_jail(jail: &Path) -> bool {
    for name in ["", "bin", "told"] {
        fs::create_dir(jail.join(name)).unwrap();
    }
    fs::set_permissions(jail.join("told"), fs::Permissions::from_mode(0o777)).unwrap();
    let source = jail.join("jailed.c");
    fs::write(&source, JAILED).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-o"]).arg(jail.join("bin/sh")).arg(&source);
    if !compiler.output().is_ok_and(|output| output.status.success()) {
        return false;
    }
    fs::hard_link(jail.join("bin/sh"), jail.join("filter")).unwrap();
    true
}

#[test]
fn programs_of_a_root_server_run_in_their_root_directory_as_the_configured_user() {
    let (own, other) = (free_address(), free_address());
    let config = format!(
        "filter own proc-exec \"/filter\" chroot \"@DIR@/own\"\n\
         filter other proc-exec \"/filter\" user alice group bob chroot \"@DIR@/other\"\n\
         filter nowhere proc-exec \"/filter\" chroot \"@DIR@/nowhere\"\n\
         @LISTEN@ filter nowhere\n\
         listen on {} port {} filter own\nlisten on {} port {} filter other\n\
         action \"local\" mbox\nmatch for local action \"local\"\n",
        own.ip(),
        own.port(),
        other.ip(),
        other.port()
    );
    let mut is_filled = true;
    let started = Server::start_as_root_with(&config, |directory| {
        is_filled = ["own", "other"].iter().all(|name| fill_jail(&directory.join(name)));
    });
    let Some(server) = started else { return };
    if !is_filled {
        println!("skipped: no static program can be made here");
        return;
    }
    for (name, address, user, group) in [("own", own, SMTPD, SMTPD), ("other", other, ALICE, BOB)] {
        let reply = Peer::connect(address).unwrap().reply().unwrap();
        assert_eq!(reply.line(), "550 said inside", "{name}");
        let told = fs::read_to_string(server.path(&format!("{name}/told/who"))).unwrap();
        let expected = format!("{user} {user} {user} {group} +{group} in / without passwd\n");
        assert_eq!(told, expected, "{name}");
    }
    // A directory that is not there fails its own sessions, and is named.
    let nowhere = server.path("nowhere");
    let reason = format!("filter nowhere: chroot {}: /bin/sh: No such file", nowhere.display());
    server.wait_for_log(&reason);
    let reply = Peer::connect(server.address()).unwrap().reply().unwrap();
    assert_eq!(reply.line(), "421 Internal server error");
    spec_case::ran("filter", 12);
}
