//! What roles are answered, and what they are refused.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::config::tests::good;
use crate::ipc::message::worker::Method;
use crate::model::{EnvelopeId, Mailbox, ReversePath};

fn offices() -> Offices {
    Offices {
        spawner: Neighbour::default(),
        lookup: Neighbour::default(),
        config: Arc::new(good(
            "table users { alice = \"1:1:/\" }\ntable aliases { a = b }\n\
             action \"a\" maildir userbase <users> alias <aliases>\n\
             match for local action \"a\"",
        )),
        job_key: Key::new([1; 32]),
        setup: SpawnerSetup {
            daemon: None,
            mailboxes: String::new(),
            libexec: String::new(),
            server_name: String::new(),
            rootless: false,
        },
        filter_groups: FilterGroups::default(),
        filter_starts: FilterStarts::default(),
        directory: PathBuf::from("/"),
    }
}

fn record(identity: &Identity) -> JobRecord {
    let address = Mailbox::parse("alice@example.org").unwrap();
    JobRecord {
        job: 1,
        envelope: EnvelopeId::new(0x1_0000_0001).unwrap(),
        identity: identity.clone(),
        user: "alice".to_owned(),
        userbase: None,
        method: Method::Mbox,
        overridden: false,
        wrapper: None,
        sender: ReversePath::NULL,
        recipient: address.clone(),
        destination: address,
        subaddress: String::new(),
        delimiter: "+".to_owned(),
    }
}

#[test]
fn who_may_read_a_file_is_in_its_bits() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let found = file.as_file().metadata().unwrap();
    let account = |uid, gid| Account {
        name: String::new(),
        uid,
        gid,
        groups: Vec::new(),
        home: String::new(),
    };
    let (own, other) = ((found.uid(), found.gid()), (found.uid() + 1, found.gid() + 1));
    for (mode, owner, group, others) in
        [(0o600, true, false, false), (0o640, true, true, false), (0o604, true, false, true)]
    {
        let bits = std::os::unix::fs::PermissionsExt::from_mode(mode);
        file.as_file().set_permissions(bits).unwrap();
        let found = file.as_file().metadata().unwrap();
        assert_eq!(may_read(&found, &account(own.0, own.1)), owner, "{mode:o}");
        assert_eq!(may_read(&found, &account(other.0, own.1)), group, "{mode:o}");
        assert_eq!(may_read(&found, &account(other.0, other.1)), others, "{mode:o}");
    }
}

// Design, section 1, Trust: the dispatcher can name neither a user nor a command.
#[tokio::test]
async fn a_worker_is_started_only_for_a_job_that_the_queue_has_sealed() {
    let offices = offices();
    let named = |account: &str, root_mailbox| Identity {
        account: account.to_owned(),
        userbase: None,
        root_mailbox,
        programs: false,
    };
    let (alice, root) = (named("alice", false), named("root", true));
    let elsewhere = Identity { userbase: Some("users".to_owned()), ..alice.clone() };
    let key = identity_key(&offices.job_key, &alice);
    let foreign = identity_key(&Key::new([2; 32]), &alice);
    let forged = [
        ("with another key", alice.clone(), foreign.seal(&record(&alice)).unwrap()),
        ("for a namesake", elsewhere, key.seal(&record(&alice)).unwrap()),
        ("for another identity", root.clone(), key.seal(&record(&alice)).unwrap()),
        ("that names another", alice.clone(), key.seal(&record(&root)).unwrap()),
    ];
    // There is no spawner: a job that is believed waits for one, a forged one is refused at once.
    let soon = Duration::from_millis(200);
    for (name, identity, ticket) in forged {
        let answer = timeout(soon, offices.start_worker(identity, &ticket)).await;
        assert!(answer.is_ok_and(|answer| answer.is_err()), "{name}");
    }
    let genuine = key.seal(&record(&alice)).unwrap();
    assert!(timeout(soon, offices.start_worker(alice, &genuine)).await.is_err());
}

#[tokio::test]
async fn lookup_and_workers_get_no_more_than_they_may_name() {
    let offices = offices();
    let soon = Duration::from_millis(200);
    // What is refused is refused at once; what is believed waits for a spawner or a lookup.
    let root = Reads::Entry { uid: 0, gid: 0 };
    assert!(matches!(timeout(soon, offices.start_reader(root)).await, Ok(Err(_))));
    let entry = Reads::Entry { uid: 1, gid: 1 };
    assert!(timeout(soon, offices.start_reader(entry)).await.is_err());
    let look_up = |table: &str| offices.look_up_in(table.to_owned(), "alice".to_owned());
    for table in ["aliases", "no such table", "<localnames>"] {
        let answer = timeout(soon, look_up(table)).await;
        assert!(matches!(answer, Ok(UserAnswer::Failed(_))), "{table}: {answer:?}");
    }
    assert!(timeout(soon, look_up("users")).await.is_err());
}
