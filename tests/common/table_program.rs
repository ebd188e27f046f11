//! A table program that answers, or misbehaves, as the test wants.
//!
//! It is a shell script; its parameter names a directory, and the files in there say what it does:
//! `handshake` what it registers, `mode` how it answers from now on, `map` what it answers with.
//! What it was asked, and as whom it runs, it writes there too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::install::copy_program;
use super::server::Server;

/// The program. Reading nothing after the handshake it would never see the end of the daemon, as a
/// program that hangs does not.
const SCRIPT: &str = r#"#!/bin/sh
cd "$1" || exit 1
echo "$(id -u) $(id -g) $PATH ${PILLARBOX_LIBEXEC-clean}" >as
told=
while IFS= read -r line && [ "$line" != "config|ready" ]; do told="$told$line "; done
echo "$told" >>starts
cat handshake
while IFS='|' read -r table version time name operation rest; do
    echo "$table|$version|$name|$operation|$rest" >>asked
    case $operation in
        check | lookup) service=${rest%%|*} rest=${rest#*|} id=${rest%%|*} key=${rest#*|} ;;
        fetch) service=${rest%%|*} id=${rest#*|} key= ;;
        *) id=$rest ;;
    esac
    begin="$operation-result|$id"
    case $(cat mode) in
        answer) ;;
        die) exit 1 ;;
        error) echo "$begin|error|boom"; continue ;;
        kill) kill -KILL $$ ;;
        nonsense) echo "what was the question?"; continue ;;
        stall) while :; do sleep 1000; done ;;
        twice) echo "$begin|not-found" ;;
    esac
    if [ "$operation" = update ]; then echo "$begin|ok"; continue; fi
    answer=not-found
    while IFS='|' read -r in entry value; do
        [ "$in|$entry" = "$service|$key" ] || continue
        answer=found
        [ "$operation" = check ] || answer="found|$value"
    done <map
    echo "$begin|$answer"
done
"#;

/// What a program registers that can be asked for everything.
pub const HANDSHAKE: &str = "register|domain\nregister|alias\nregister|userinfo\nregister|source\n\
                             register|relayhost\nregister|addrname\nregister|ready\n";

/// The directory that tells a program what to do.
pub struct TableProgram {
    directory: PathBuf,
}

impl TableProgram {
    /// Puts the program called `table-NAME` where `server` will look for it, and its directory where
    /// `table T NAME:@DIR@/mail/NAME` finds it. It answers with `map`: lines `service|key|value`.
    pub fn install(server: &Server, name: &str, map: &str) -> Self {
        Self::put(&server.path("mail"), &server.program(&format!("table-{name}")), name, map)
    }

    /// As [`TableProgram::install`], below a directory for mail, as this program.
    pub fn put(mail: &Path, program: &Path, name: &str, map: &str) -> Self {
        let directory = mail.join(name);
        fs::create_dir(&directory).unwrap();
        // Whoever it runs as writes here.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let made = Self { directory };
        made.write("map", map);
        made.write("mode", "answer\n");
        made.write("handshake", HANDSHAKE);
        made.write("script", SCRIPT);
        fs::set_permissions(made.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
        copy_program(made.path("script"), program);
        made
    }

    /// From now on it answers like this.
    pub fn mode(&self, mode: &str) {
        self.write("mode", mode);
    }

    /// This is what its successors say first.
    pub fn handshake(&self, text: &str) {
        self.write("handshake", text);
    }

    /// The lines that it and its predecessors have written to a file: to `starts` what they were
    /// told first, to `asked` their questions, to `as` who the last one is.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How many of them have been started.
    pub fn starts(&self) -> usize {
        self.lines("starts").len()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whole at once: it may read at any moment.
    fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }
}
