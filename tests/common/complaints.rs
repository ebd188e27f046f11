//! What `smtpd -n` says about a configuration that is used as an example.

/// The complaints that no example may have: all but those about parts without effect yet, about key
/// exchange over finite fields, which is gone, and about private keys, which an ordinary account cannot
/// look at.
pub fn unexpected(said: &str) -> Vec<String> {
    said.lines().filter(|line| !is_expected(line)).map(str::to_owned).collect()
}

fn is_expected(line: &str) -> bool {
    line == "configuration OK"
        || line.ends_with(": not supported yet")
        || line.contains(": warn: dhe has no effect: ")
        || line.ends_with(": not owned by uid 0")
        || line.contains(": insecure permissions: ")
        || line.contains(": load_pki_tree: failed to load ")
        || line.contains(": load_pki_keys: failed to load ")
}
