//! The users, tables and rules that the cases are about, and what a recipient comes to there.

use super::*;

/// Users without a `.forward` of interest.
pub(super) const USERS: [&str; 8] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "gina", "root"];

/// Users with a `.forward`, and what it says.
pub(super) const FORWARDS: [(&str, &str); 15] = [
    ("kim", "kim, x@rdr.org"),
    ("away", "x@rdr.org"),
    ("split", "x@rdr.org\n|/bin/cat -n\n/var/mail/copy of mine"),
    ("empty", ""),
    ("remarks", "# nothing\n  # to see\n"),
    ("wrong", "bad line here"),
    ("ring1", "ring2"),
    ("ring2", "ring1"),
    ("again", "again"),
    ("gone", "nobody"),
    ("refuser", "error:550 5.1.1 moved"),
    ("lister", ":include:/list, alice"),
    ("fromroot", "root, alice"),
    ("pair", "alice, alice, kim"),
    ("viaalias", "list"),
];

/// Aliases for `a.org`, virtual recipients for `v`, `v2.org` and `x.org`, a relay for the rest.
pub(super) const RULES: &str = "action aliases maildir alias <aliases>\n\
    action mapped maildir virtual <people>\n\
    action plain maildir user bob\n\
    action forwards forward-only alias <aliases>\n\
    action expands expand-only alias <aliases>\n\
    action out relay\n\
    match from any for domain a.org action aliases\n\
    match from any for domain { v, \"v2.org\", \"x.org\" } action mapped\n\
    match from any for domain p.org action plain\n\
    match from any for domain f.org action forwards\n\
    match from any for domain e.org action expands\n\
    match from local for domain refused.org reject\n\
    match from local for any action out\n";

pub(super) const TABLES: &str = "\
    table aliases {\n\
    list = \"alice, bob\"\n\
    err5 = \"error:550 5.1.1 gone away\"\n\
    err4 = \"error:450 4.2.1 later\"\n\
    mix = \"alice, error:550 5.1.1 mixed\"\n\
    inc = \":include:/missing\"\n\
    incnone = \":include:/empty\"\n\
    inclist = \":include:/list\"\n\
    incboth = \"gina, :include:/list, :include:/missing, :include:/empty\"\n\
    incslow = \":include:/slow\"\n\
    inclarge = \":include:/large\"\n\
    incmany = \":include:/many\"\n\
    carol = \":include:/missing\"\n\
    toroot = root\n\
    loop1 = loop2\n\
    loop2 = loop1\n\
    self = self\n\
    bob = bob\n\
    \"alice+tag\" = bob\n\
    bad = \"foo bar\"\n\
    c0 = c1\n c1 = c2\n c2 = c3\n c3 = c4\n c4 = c5\n c5 = c6\n c6 = c7\n c7 = c8\n c8 = alice\n\
    dupl = \"alice, viab\"\n\
    viab = alice\n\
    viac = alice\n\
    dup2 = \"viab, viac\"\n\
    both = \"alice, alice+x\"\n\
    run = \"|/bin/cat -n\"\n\
    file = \"/var/log/mail box\"\n\
    out = \"Someone@Far.org\"\n\
    refused = \"x@refused.org\"\n\
    mixed = \"nobody, alice\"\n\
    blank = \",\"\n\
    }\n\
    table people {\n\
    \"u3+tag@v\" = carol\n\
    \"u3@v\" = dave\n\
    \"u4+tag\" = carol\n\
    u4 = dave\n\
    \"@v2.org\" = erin\n\
    u2 = bob\n\
    \"u5@v\" = u6\n\
    u6 = gina\n\
    \"@x.org\" = \"someone@x.org\"\n\
    \"someone@x.org\" = alice\n\
    \"u13@v\" = \"u13@v\"\n\
    \"u14@v\" = stranger\n\
    }\n";

pub(super) fn session() -> Session {
    Session {
        tag: String::new(),
        client: Client::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)).into()),
        client_name: None,
        helo: "client".into(),
        login: None,
        tls: false,
        sender: Address::new("a", "b.c"),
    }
}

/// Expands `recipient`, with the accounts of [`USERS`] and [`FORWARDS`].
pub(super) fn expand(text: &str, recipient: &str) -> Result<Vec<Delivery>, Refusal> {
    expand_with(text, recipient, forward).0
}

/// As [`expand`], with other `.forward` files; and what was noted.
pub(super) fn expand_with(
    text: &str,
    recipient: &str,
    forward: impl Fn(&str) -> ForwardFile,
) -> (Result<Vec<Delivery>, Refusal>, Vec<Note>) {
    let config = good(text);
    let tables = Tables::new(&config);
    let few = FewTables::new(&config);
    let mut expansion = Expansion::new(address(recipient), "_smtpd");
    let mut answer = None;
    loop {
        match expansion.advance(&config, &few, &session(), answer.as_ref()) {
            Step::Ask(question) => {
                answer = Some(tables.answer(&question).unwrap_or_else(|| account(&question)));
            }
            Step::Done(result) => return (result, expansion.take_notes()),
            Step::Read(reading) => {
                answer = None;
                expansion.supply(match reading {
                    Reading::Forward { name, account, .. } => {
                        assert_eq!(account.home, format!("/home/{name}"));
                        Contents::Forward(forward(&name))
                    }
                    Reading::Include { path } => Contents::Include(list(&path)),
                });
            }
        }
    }
}

pub(super) fn forward(name: &str) -> ForwardFile {
    match FORWARDS.iter().find(|(user, _)| *user == name) {
        Some((_, text)) => text_file(text),
        None => ForwardFile::Absent,
    }
}

pub(super) fn text_file(text: &str) -> ForwardFile {
    ForwardFile::Text(Blob(text.as_bytes().to_vec()))
}

pub(super) fn list(path: &str) -> IncludedList {
    match path {
        "/empty" => IncludedList::Text(Vec::new()),
        "/large" => IncludedList::TooLarge,
        "/list" => IncludedList::Text(b"carol@example.net # c\nno good\ndave, erin\n".to_vec()),
        "/many" => IncludedList::Text(many(20_000).into_bytes()),
        "/slow" => IncludedList::Failed("it hangs".to_owned()),
        _ => IncludedList::Missing("No such file".to_owned()),
    }
}

/// This many addresses.
pub(super) fn many(count: usize) -> String {
    (0..count).map(|number| format!("x{number}@rdr.org\n")).collect()
}

pub(super) fn account(question: &Question) -> Answer {
    let Question::Account { name, .. } = question else { panic!("{question:?}") };
    if name == "unknowable" {
        return Answer::Failed;
    }
    let known = USERS.contains(&name.as_str()) || FORWARDS.iter().any(|(user, _)| user == name);
    let uid = if name == "root" { 0 } else { 1000 };
    Answer::Account(known.then(|| Account { uid, gid: uid, home: format!("/home/{name}") }))
}

pub(super) fn address(text: &str) -> Address {
    let (local, domain) = text.split_once('@').unwrap();
    Address::new(local, domain)
}

/// What a recipient comes to, in short: deliveries, or the reply.
pub(super) fn outcome(recipient: &str) -> String {
    let text = format!("{TABLES}{RULES}");
    match expand(&text, recipient) {
        Ok(deliveries) => {
            let all: Vec<_> = deliveries.iter().map(short).collect();
            all.join(", ")
        }
        Err(refusal) => refusal.reply(&address(recipient)),
    }
}

pub(super) fn short(delivery: &Delivery) -> String {
    let Delivery { destination, kind, .. } = delivery;
    match kind {
        DeliveryKind::Relay => format!("relay {destination}"),
        DeliveryKind::Local { user, tag, target } => {
            let tag = tag.as_ref().map(|tag| format!("+{tag}")).unwrap_or_default();
            match target {
                Target::Method => format!("{user}{tag}"),
                Target::Command(command) => format!("{user}{tag} |{command}"),
                Target::File(path) => format!("{user}{tag} {path}"),
            }
        }
    }
}
