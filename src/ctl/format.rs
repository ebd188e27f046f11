//! The listings of `smtpctl`: queue, counters, status, each as text and as JSON.
//!
//! The text forms are an interface that scripts read; nothing in them may change. JSON has one
//! object a line for the queue, one object otherwise, and may gain members.
//!
//! Sources: the queue page of the specification, 6.4, 6.5 and 8.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::escape::append_visible;
use crate::ipc::message::client::{
    Family, HoldReason, ListedEnvelope, ListedKind, ListedState, Statistic, Status, Unfit,
};
use crate::time::duration_to_text;

/// Name of the counter that is printed a second time as a duration.
const UPTIME: &str = "uptime";

/// Appends the line of one envelope to `out`, line end included.
///
/// Where an envelope is held for more than room, its last field begins with the reason.
///
/// `now` is in seconds since 1970: for an envelope in flight, the start of the attempt is counted
/// back from it.
pub fn queue_line(out: &mut String, listed: &ListedEnvelope, now: i64) {
    let summary = &listed.summary;
    let (state, delay) = state(listed.place.state);
    // Writing to a String cannot fail.
    let _ = write!(out, "{}|{}|{}|", summary.id, family(summary.family), kind(summary.kind));
    for (index, flag) in flags(listed).enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(flag);
    }
    out.push('|');
    out.push_str(if summary.sender.is_empty() { "@" } else { &summary.sender });
    let _ = write!(
        out,
        "|{}|{}|{}|{}|{}|{}|{state}|{delay}|",
        summary.recipient,
        summary.destination,
        summary.created,
        listed.place.expires,
        last_try(listed, now),
        summary.retries,
    );
    if let Some(because) = held_because(listed) {
        append_visible(out, &because);
        if !summary.error.is_empty() {
            out.push_str("; last error: ");
        }
    }
    append_visible(out, &summary.error);
    out.push('\n');
}

/// Why an envelope with this `action` is held.
#[must_use]
pub fn reason(reason: HoldReason, action: &str) -> String {
    match reason {
        HoldReason::Suspect => "held: the server crashed when it was tried; \
             schedule it to try it again, or remove it"
            .to_owned(),
        HoldReason::Unfit(Unfit::ActionChanged) => {
            format!("held: action \"{action}\" is of another kind now")
        }
        HoldReason::Unfit(Unfit::ActionGone) => {
            format!("held: action \"{action}\" is not in the configuration")
        }
    }
}

fn held_because(listed: &ListedEnvelope) -> Option<String> {
    listed.place.reason.map(|why| reason(why, &listed.summary.action))
}

/// Appends one envelope to `out` as a JSON object and a line end.
pub fn queue_json(out: &mut String, listed: &ListedEnvelope, now: i64) {
    let summary = &listed.summary;
    let (state, delay) = state(listed.place.state);
    let object = json!({
        "id": summary.id.to_string(),
        "source": family(summary.family),
        "type": kind(summary.kind),
        "flags": flags(listed).collect::<Vec<_>>(),
        "sender": summary.sender,
        "recipient": summary.recipient,
        "destination": summary.destination,
        "created": summary.created,
        "expires": listed.place.expires,
        "last_try": last_try(listed, now),
        "retries": summary.retries,
        "state": state,
        "delay": delay,
        "error": summary.error,
        "action": summary.action,
        "held_because": held_because(listed),
    });
    let _ = writeln!(out, "{object}");
}

const fn family(family: Family) -> &'static str {
    match family {
        Family::Inet4 => "inet4",
        Family::Inet6 => "inet6",
        Family::Local => "local",
    }
}

const fn kind(kind: ListedKind) -> &'static str {
    match kind {
        ListedKind::Bounce => "bounce",
        ListedKind::Mda => "mda",
        ListedKind::Mta => "mta",
    }
}

/// The flags that hold, in the order of the listing.
fn flags(listed: &ListedEnvelope) -> impl Iterator<Item = &'static str> {
    [
        (listed.summary.authenticated, "auth"),
        (listed.summary.internal, "internal"),
        (listed.place.suspended, "suspend"),
        (listed.place.held, "hold"),
    ]
    .into_iter()
    .filter_map(|(holds, name)| holds.then_some(name))
}

const fn state(state: ListedState) -> (&'static str, i64) {
    match state {
        ListedState::InFlight(elapsed) => ("inflight", elapsed),
        ListedState::Pending(wait) => ("pending", wait),
    }
}

fn last_try(listed: &ListedEnvelope, now: i64) -> i64 {
    match listed.place.state {
        ListedState::InFlight(elapsed) => now.saturating_sub(elapsed),
        ListedState::Pending(_) => listed.summary.last_try,
    }
}

/// `key=value` lines, sorted by key; `uptime` is followed by `uptime.human`.
#[must_use]
pub fn statistics(mut statistics: Vec<Statistic>) -> String {
    statistics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let mut out = String::new();
    for Statistic { name, value } in statistics {
        let _ = writeln!(out, "{name}={value}");
        if name == UPTIME {
            let uptime = Duration::from_secs(value.unsigned_abs());
            let _ = writeln!(out, "{name}.human={}", duration_to_text(uptime));
        }
    }
    out
}

/// One JSON object with a member for each counter.
#[must_use]
pub fn statistics_json(statistics: Vec<Statistic>) -> String {
    let members: Map<String, Value> =
        statistics.into_iter().map(|one| (one.name, one.value.into())).collect();
    format!("{}\n", Value::Object(members))
}

/// Three lines that say what runs, then what an administrator should know, a line each.
#[must_use]
pub fn status(status: &Status) -> String {
    let word = |paused| if paused { "paused" } else { "running" };
    let mut out = format!(
        "MDA {}\nMTA {}\nSMTP {}\n",
        word(status.mda_paused),
        word(status.mta_paused),
        word(status.smtp_paused)
    );
    for notice in &status.notices {
        append_visible(&mut out, notice);
        out.push('\n');
    }
    out
}

/// The status as one JSON object.
#[must_use]
pub fn status_json(status: &Status) -> String {
    let object = json!({
        "mda_paused": status.mda_paused,
        "mta_paused": status.mta_paused,
        "smtp_paused": status.smtp_paused,
        "notices": status.notices,
    });
    format!("{object}\n")
}

/// `2 envelopes removed`; one and none have no `s`.
#[must_use]
pub fn count(number: u64, verb: &str) -> String {
    let plural = if number > 1 { "s" } else { "" };
    format!("{number} envelope{plural} {verb}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::message::client::{Place, Summary};

    fn listed() -> ListedEnvelope {
        ListedEnvelope {
            summary: Summary {
                id: "f85ab57f43bf07fc".parse().unwrap(),
                family: Family::Local,
                kind: ListedKind::Mda,
                authenticated: true,
                internal: false,
                sender: "bob@md.test".into(),
                recipient: "alice@f75.test".into(),
                destination: "alice@f75.test".into(),
                created: 1_795_289_588,
                last_try: 0,
                retries: 1,
                error: "\"temporary trouble\"".into(),
                action: "fail75".into(),
            },
            place: Place {
                state: ListedState::Pending(6),
                expires: 1_795_635_188,
                held: false,
                reason: None,
                suspended: false,
            },
        }
    }

    fn line(listed: &ListedEnvelope, now: i64) -> String {
        let mut out = String::new();
        queue_line(&mut out, listed, now);
        out
    }

    #[test]
    fn an_envelope_is_listed_as_fourteen_fields() {
        let expected = "f85ab57f43bf07fc|local|mda|auth|bob@md.test|alice@f75.test|alice@f75.test|\
             1795289588|1795635188|0|1|pending|6|\"temporary trouble\"\n";
        assert_eq!(line(&listed(), 1_795_289_600), expected);
    }

    #[test]
    fn an_attempt_that_runs_is_the_last_try() {
        let mut listed = listed();
        listed.place.state = ListedState::InFlight(12);
        listed.summary.sender.clear();
        listed.summary.error = "a|b\r\n\\".into();
        let text = line(&listed, 1_795_289_600);
        let fields: Vec<&str> = text.trim_end().splitn(14, '|').collect();
        assert_eq!(fields[4], "@");
        assert_eq!(fields[9], "1795289588");
        assert_eq!(fields[11..], ["inflight", "12", r"a|b\^M\^J\\"]);
    }

    // queue case 173.
    #[test]
    fn a_held_envelope_says_hold_and_may_be_overdue() {
        let mut listed = listed();
        listed.place = Place {
            state: ListedState::Pending(-30),
            expires: 5,
            held: true,
            reason: None,
            suspended: true,
        };
        listed.summary.internal = true;
        let text = line(&listed, 0);
        let fields: Vec<&str> = text.split('|').collect();
        assert_eq!(fields[3], "auth,internal,suspend,hold");
        assert_eq!(fields[11..13], ["pending", "-30"]);
    }

    #[test]
    fn the_reason_of_a_hold_stands_before_the_last_error() {
        let gone = HoldReason::Unfit(Unfit::ActionGone);
        let changed = HoldReason::Unfit(Unfit::ActionChanged);
        let cases = [
            (gone, "", "held: action \"a\\\\b\" is not in the configuration"),
            (changed, "x", "held: action \"a\\\\b\" is of another kind now; last error: x"),
            (
                HoldReason::Suspect,
                "",
                "held: the server crashed when it was tried; schedule it to try it again, \
                 or remove it",
            ),
        ];
        for (why, error, expected) in cases {
            let mut listed = listed();
            listed.place.held = true;
            listed.place.reason = Some(why);
            listed.summary.action = "a\\b".into();
            listed.summary.error = error.into();
            let text = line(&listed, 0);
            assert_eq!(text.trim_end().splitn(14, '|').last(), Some(expected));
            let mut json = String::new();
            queue_json(&mut json, &listed, 0);
            let object: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(object["held_because"], reason(why, "a\\b"));
            assert_eq!((&object["error"], &object["flags"][1]), (&json!(error), &json!("hold")));
        }
        let mut json = String::new();
        queue_json(&mut json, &listed(), 0);
        let object: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&object["held_because"], &object["action"]), (&Value::Null, &json!("fail75")));
    }

    #[test]
    fn json_lines_hold_what_the_text_holds() {
        let mut out = String::new();
        queue_json(&mut out, &listed(), 0);
        let object: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["id"], "f85ab57f43bf07fc");
        assert_eq!(object["flags"], json!(["auth"]));
        assert_eq!(object["delay"], 6);
        assert_eq!(out.matches('\n').count(), 1);
    }

    // queue cases 211 and 212.
    #[test]
    fn counters_are_sorted_by_bytes_and_uptime_comes_twice() {
        let of = |name: &str, value| Statistic { name: name.into(), value };
        let given = vec![of("uptime", 6), of("smtp.session", -1), of("control.session", 1)];
        assert_eq!(
            statistics(given.clone()),
            "control.session=1\nsmtp.session=-1\nuptime=6\nuptime.human=6s\n"
        );
        let object: Value = serde_json::from_str(&statistics_json(given)).unwrap();
        assert_eq!(object["uptime"], 6);
    }

    // queue case 166.
    #[test]
    fn status_is_three_lines_and_then_notices() {
        let mut given = Status::default();
        assert_eq!(status(&given), "MDA running\nMTA running\nSMTP running\n");
        given.mta_paused = true;
        given.notices.push("landlock: not offered".into());
        assert_eq!(
            status(&given),
            "MDA running\nMTA paused\nSMTP running\nlandlock: not offered\n"
        );
        let object: Value = serde_json::from_str(&status_json(&given)).unwrap();
        assert_eq!(object["mta_paused"], true);
    }

    // queue cases 163 and 165.
    #[test]
    fn counts_have_a_plural_above_one_only() {
        assert_eq!(count(0, "removed"), "0 envelope removed\n");
        assert_eq!(count(1, "scheduled"), "1 envelope scheduled\n");
        assert_eq!(count(2, "removed"), "2 envelopes removed\n");
    }
}
