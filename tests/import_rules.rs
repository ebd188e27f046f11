//! The directions of dependency: who may use whom, read from the sources.
//!
//! Role folders never import one another; they share messages and values. Logic knows no sockets,
//! clocks, tasks or files. What a system decides, and `unsafe`, is in the crate `platform` alone.
//! Code that is compiled for tests only may do what it likes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One process each, or one program.
const ROLES: [&str; 11] = [
    "client",
    "control",
    "ctl",
    "dispatcher",
    "keys",
    "lookup",
    "parent",
    "queue",
    "scheduler",
    "spawner",
    "worker",
];

/// What everything may use that runs as a role.
const FOR_ROLES: [&str; 12] = [
    "config", "filter", "ipc", "log", "message", "model", "paths", "process", "proto", "table",
    "time", "tls",
];

/// What the folders may use that are no roles, themselves left aside.
const LOGIC: [(&str, &[&str]); 13] = [
    ("config", &["table"]),
    // No role: it asks what roles would do, in a process that serves nobody.
    (
        "explain",
        &["config", "ipc", "lookup", "model", "parent", "paths", "proto", "table", "worker"],
    ),
    ("filter", &["config", "model", "proto", "table"]),
    ("ipc", &["config", "filter", "model", "table"]),
    ("log", &[]),
    ("message", &["model", "proto"]),
    ("model", &[]),
    ("paths", &[]),
    ("process", &["config", "ipc", "log", "model", "time"]),
    ("proto", &["model"]),
    ("table", &["config", "model"]),
    ("time", &[]),
    ("tls", &["config", "model"]),
];

/// A source file without what is compiled for tests only.
struct Source {
    path: PathBuf,
    /// The folder, or the file, directly below `src`.
    part: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that are declared behind `#[cfg(test)]`, as files below the folder of `path`.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap();
    let parent = path.parent().unwrap();
    let folder = if stem == "mod" || stem == "lib" { parent.to_owned() } else { parent.join(stem) };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut modules = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[cfg(test)]") {
        let declared = lines[at + 1..].iter().find(|line| !line.starts_with("#["));
        let name = declared.and_then(|line| line.rsplit("mod ").next()?.strip_suffix(';'));
        modules.extend(name.map(|name| folder.join(name)));
    }
    modules
}

/// The text without comments and without items for tests.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // The item ends with the line that closes what its first lines opened.
            let mut depth = 0_i32;
            for line in lines.by_ref() {
                depth += i32::try_from(line.matches('{').count()).unwrap();
                depth -= i32::try_from(line.matches('}').count()).unwrap();
                let ends = line.trim_end().ends_with([';', '}']);
                if depth <= 0 && ends {
                    break;
                }
            }
            continue;
        }
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    files_below(&src, &mut files);
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    assert!(texts.len() > 100, "the sources were not found");
    let for_tests: Vec<PathBuf> =
        texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    texts
        .into_iter()
        .filter(|(path, _)| {
            !for_tests.iter().any(|module| path.with_extension("").starts_with(module))
        })
        .map(|(path, text)| {
            let below = path.strip_prefix(&src).unwrap();
            let part = Path::new(below.iter().next().unwrap()).with_extension("");
            let part = part.display().to_string();
            Source { part, text: code_of(&text), path }
        })
        .collect()
}

/// The parts of the crate that a file names by `crate::`.
fn uses(source: &Source) -> BTreeSet<String> {
    source
        .text
        .split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| *name != source.part)
        .collect()
}

/// Lines that hold one of these words.
fn lines_with(source: &Source, words: &[&str]) -> Vec<String> {
    let holds = |line: &&str| words.iter().any(|word| line.contains(word));
    source
        .text
        .lines()
        .filter(holds)
        .map(|line| format!("{}: {}", source.path.display(), line.trim()))
        .collect()
}

#[test]
fn roles_share_messages_and_values_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let role = ROLES.contains(&source.part.as_str());
        let logic = LOGIC.iter().find(|(part, _)| *part == source.part);
        for used in uses(&source) {
            let allowed = match logic {
                Some((_, allowed)) => allowed.contains(&used.as_str()),
                None => role && FOR_ROLES.contains(&used.as_str()),
            };
            if !allowed {
                wrong.push(format!("{} uses {used}", source.path.display()));
            }
        }
        let known = role || logic.is_some() || ["bin", "lib"].contains(&source.part.as_str());
        assert!(known, "{} belongs to no known part: add it to this test", source.path.display());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_role_leaves_its_folder_only_by_its_full_name() {
    // From the top of a folder, `super` is the crate: it would go past the test above.
    for source in sources() {
        let top = source.path.file_name().is_some_and(|name| name == "mod.rs");
        let top = top && source.path.parent().unwrap().parent().unwrap().ends_with("src");
        let found = if top { lines_with(&source, &["super::"]) } else { Vec::new() };
        assert!(found.is_empty(), "{found:#?}");
        let twice = lines_with(&source, &["super::super::super"]);
        assert!(twice.is_empty(), "{twice:#?}");
    }
}

#[test]
fn logic_knows_no_sockets_clocks_tasks_or_files() {
    let forbidden = [
        "tokio",
        "std::fs",
        "std::process",
        "std::thread",
        "std::env",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "SystemTime",
        "Instant",
        "Timestamp::now",
        "platform::",
        "getrandom",
    ];
    for source in sources() {
        if ["config", "message", "model", "proto", "table"].contains(&source.part.as_str()) {
            let found = lines_with(&source, &forbidden);
            assert!(found.is_empty(), "{found:#?}");
        }
    }
}

#[test]
fn the_portable_core_names_no_system_and_is_safe() {
    let words = ["cfg(target_", "cfg(unix", "cfg(windows", "unsafe ", "libc::", "cfg!("];
    for source in sources() {
        let found = lines_with(&source, &words);
        assert!(found.is_empty(), "{found:#?}");
    }
    for library in ["src/lib.rs", "mailwrapper/src/main.rs"] {
        let text = fs::read_to_string(root().join(library)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{library}");
    }
}

#[test]
fn only_parent_and_spawner_use_what_needs_root() {
    // Dropping rights is the business of every process, in `process` and `worker`.
    let words = [
        "platform::users::create",
        "platform::fd::listen_",
        "platform::mbox::open_mailbox",
        "platform::service::",
        "process::spawn(",
        "run_in_child",
    ];
    // The one duty of a worker that keeps the spawner's rights: it forks a child for each owner.
    let submitter = root().join("src/worker/offline.rs");
    for source in sources() {
        if !["parent", "spawner"].contains(&source.part.as_str()) && source.path != submitter {
            let found = lines_with(&source, &words);
            assert!(found.is_empty(), "{found:#?}");
        }
    }
}

#[test]
fn only_lookup_resolves_names() {
    for source in sources() {
        if source.part != "lookup" {
            let found = lines_with(&source, &["hickory"]);
            assert!(found.is_empty(), "{found:#?}");
        }
    }
}
