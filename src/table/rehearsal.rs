//! What must hold for every text that a table is read from, for tests that try any.
//!
//! A text is tried as a table file of each kind and, line by line, as a relay URL, as credentials and as
//! other values.

use super::file::{self, Reader};
use super::relay_url::RelayUrl;
use super::{Service, Table, value};
use crate::config::TableKind;

/// Tries a text.
///
/// # Errors
/// What does not hold, in words.
pub fn exercise(bytes: &[u8]) -> Result<(), String> {
    for known in [TableKind::Undecided, TableKind::List, TableKind::Mapping] {
        table(bytes, known)?;
    }
    for line in String::from_utf8_lossy(bytes).lines().take(16) {
        values(line)?;
    }
    Ok(())
}

fn table(bytes: &[u8], known: TableKind) -> Result<(), String> {
    let Ok(survey) = file::survey(bytes, known) else { return Ok(()) };
    let table = Table::read(bytes.to_vec(), known).map_err(|error| error.to_string())?;
    if table.len() > survey.entries || (table.is_empty() && survey.entries > 0) {
        return Err(format!("{} keys of {} entries", table.len(), survey.entries));
    }
    for entry in Reader::new(bytes, survey.kind).take(64) {
        let entry = entry.map_err(|error| error.to_string())?;
        let (key, value) = file::at(bytes, entry.offset, survey.kind);
        if (key, value) != (entry.key, entry.value) {
            return Err(format!("line {} is another when found again", entry.line));
        }
        let Ok(key) = std::str::from_utf8(key) else { continue };
        for service in Service::ALL {
            let found = table.contains(service, key, '+');
            // An expression need not match itself, nor an address with another's tag.
            let must = matches!(
                service,
                Service::Alias | Service::Domain | Service::Netaddr | Service::String
            );
            if must && !found {
                return Err(format!("{key:?} is not found by {}", service.name()));
            }
        }
        if value.is_some() != table.value(key).is_some() {
            return Err(format!("{key:?} has lost its value"));
        }
    }
    let turns: Vec<String> = (0..table.len()).filter_map(|turn| table.in_turn(turn)).collect();
    if turns.len() != table.len() {
        return Err(format!("{} turns of {} keys", turns.len(), table.len()));
    }
    Ok(())
}

fn values(line: &str) -> Result<(), String> {
    if let Ok(url) = RelayUrl::parse(line)
        && RelayUrl::parse(&url.to_string()) != Ok(url)
    {
        return Err(format!("{line:?} is another relay URL when written"));
    }
    if let Ok(credentials) = value::credentials("key", line)
        && (credentials.user.is_empty() || credentials.password.is_empty())
    {
        return Err(format!("{line:?} has an empty name or password"));
    }
    if let Ok(addresses) = value::mail_addresses(line) {
        let _either = addresses.contain(line, '+');
    }
    let _account = value::account(line);
    let _address = value::source(line);
    let _host = value::host_name(line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_are_hard() {
        let texts = [
            "a: b\na: c\nA: d",
            "# @list\n*\n**\n*.a\n@\n@@\n+\n+@+\n",
            "[::1]\n[\n",
            "[::1/64] x\n",
            "(?i)x\n(\n",
            "smtp+tls://label@host:25",
            "\u{0}\n\r\n\u{b}",
            ":\n::\n: x",
        ];
        for text in texts {
            assert_eq!(exercise(text.as_bytes()), Ok(()), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(?s)[ab@*.:/0-9\\[\\]# \t\n\\\\(+\"',-]{0,200}") {
            prop_assert_eq!(exercise(text.as_bytes()), Ok(()));
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(exercise(&bytes), Ok(()));
        }
    }
}
