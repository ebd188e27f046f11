//! Tables of a few entries that are written in the configuration: looking through them is faster than
//! asking for them.

use super::{Service, domain, mailaddr, network};
use crate::config::{Config, TableId, TableSource};

/// How many entries are looked through.
const FEW: usize = 4;

/// Whether `key` is in a table under the comparison of `service`; `None` where that takes a question:
/// the table has many entries, is elsewhere, or has to be prepared for this service.
#[must_use]
pub fn holds(config: &Config, table: TableId, service: Service, key: &str) -> Option<bool> {
    let TableSource::Inline(entries) = &config.table(table)?.source else { return None };
    if entries.len() > FEW || key.len() >= super::set::MAX_KEY {
        return None;
    }
    let mut keys = entries.iter().map(|entry| entry.key.as_bytes());
    match service {
        Service::Domain => Some(keys.any(|entry| domain::matches(entry, key.as_bytes()))),
        Service::Mailaddr => {
            let delimiter = config.smtp.sub_address_delimiter;
            Some(keys.any(|entry| mailaddr::matches(entry, key, delimiter)))
        }
        Service::Netaddr => {
            Some(keys.any(|entry| {
                entry.eq_ignore_ascii_case(key.as_bytes()) || network::holds(entry, key)
            }))
        }
        Service::String => Some(keys.any(|entry| entry.eq_ignore_ascii_case(key.as_bytes()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::good;
    use crate::table::{Answer, Question, Tables};

    #[test]
    fn the_answer_is_that_of_the_table_or_none() {
        let config = good(
            "table few { a.org, \"*.b.org\", \"bob@c.org\", \"10.0.0.0/8\" }\n\
             table many { a.org, b.org, c.org, d.org, e.org }\ntable file file:/list\n\
             match reject",
        );
        let tables = Tables::new(&config);
        let named = |name| config.table_named(name).unwrap();
        let long = "x".repeat(1024);
        for service in [Service::Domain, Service::Mailaddr, Service::String, Service::Netaddr] {
            for key in ["A.org", "x.b.org", "Bob+x@C.org", "10.0.0.1", ""] {
                let question = Question::Contains { table: named("few"), service, key: key.into() };
                let answer = tables.answer(&question);
                match holds(&config, named("few"), service, key) {
                    Some(found) => {
                        assert_eq!(answer, Some(Answer::Contains(found)), "{service:?} {key}");
                    }
                    None => panic!("{service:?}"),
                }
            }
            let regex = holds(&config, named("few"), Service::Regex, "a");
            assert_eq!(regex, None);
            for table in ["many", "file", "<getpwnam>", "<localnames>"] {
                assert_eq!(holds(&config, named(table), service, "a.org"), None, "{table}");
            }
            assert_eq!(holds(&config, named("few"), service, &long), None);
        }
    }
}
