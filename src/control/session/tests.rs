//! Clients and the roles behind them, played by the test.

use std::num::NonZeroU32;

use super::*;
use crate::ipc::message::client::{HoldReason, ListedState, Unfit};
use crate::model::fixture::relay_envelope;
use crate::model::{ReversePath, limits};

fn session() -> Session {
    let mut session = Session::new(0, 1000);
    assert_eq!(session.request(Request::Hello { version: VERSION }), finish(Reply::Welcome));
    session
}

fn id(number: u64) -> EnvelopeId {
    let message = MessageId::new(7 + (number >> 16) as u32).unwrap();
    message.envelope(NonZeroU32::new((number & 0xffff) as u32 + 1).unwrap())
}

const PLACE: Place = Place {
    state: ListedState::Pending(5),
    expires: 100,
    held: false,
    reason: None,
    suspended: false,
};

fn envelope(id: EnvelopeId, error: &str) -> Envelope {
    let mut envelope = relay_envelope(1, "alice@d");
    envelope.id = id;
    envelope.origin.sender = ReversePath::NULL;
    envelope.origin.helo = "localhost".into();
    envelope.origin.authenticated = true;
    envelope.route.action = "local".into();
    envelope.progress.error = error.into();
    envelope
}

fn asked(step: &Step) -> &Ask {
    match &step.next {
        Next::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_are_compared_before_anything_else() {
    let mut session = Session::new(0, 0);
    let step = session.request(Request::Hello { version: VERSION + 1 });
    assert_eq!(step.replies, [Reply::Incompatible { version: VERSION }]);
    assert_eq!(step.next, Next::Close);
    assert_eq!(Session::new(0, 0).request(Request::ShowStatus), close());
    assert_eq!(self::session().request(Request::Hello { version: VERSION }), close());
}

// queue case 170.
#[test]
fn what_a_user_may_not_ask_is_denied_and_the_connection_goes_on() {
    let mut session = Session::new(1001, 1000);
    session.request(Request::Hello { version: VERSION });
    assert_eq!(session.request(Request::ShowStatus), finish(Reply::Denied));
    let step = session.request(Request::OpenSession);
    assert_eq!(*asked(&step), Ask::OpenSession { uid: 1001 });
}

// queue cases 162, 163, 165 and 193; smtp case 220.
#[test]
fn each_request_asks_one_role_and_is_answered_once() {
    let selection = Selection::Envelope(id(1));
    let change = Request::Change { change: Change::Schedule, selection };
    let status = Status { mta_paused: true, ..Status::default() };
    let none = Answer::Envelopes { looked_at: 1, found: Vec::new() };
    let pause = |paused| Ask::Pause { service: Service::Mda, paused };
    let verbosity = Ask::SetVerbosity(Verbosity::Brief);
    let open = Ask::OpenSession { uid: 0 };
    let cases = [
        (change, Ask::Change(Change::Schedule, selection), Answer::Count(0), Reply::Count(0)),
        (Request::Pause(Service::Mda), pause(true), Answer::Done(true), Reply::Done),
        (Request::Pause(Service::Mda), pause(true), Answer::Done(false), Reply::Failed),
        (Request::Resume(Service::Mda), pause(false), Answer::Done(true), Reply::Done),
        (Request::SetVerbosity(Verbosity::Brief), verbosity, Answer::Done(true), Reply::Done),
        (Request::Reload, Ask::Reload, Answer::Done(false), Reply::Failed),
        (Request::Stop, Ask::Stop, Answer::Done(true), Reply::Done),
        (Request::ShowStatus, Ask::Status, Answer::Status(status.clone()), Reply::Status(status)),
        (Request::ShowEnvelope(id(1)), Ask::Envelopes(vec![id(1)]), none, Reply::NotFound),
        (Request::OpenSession, open.clone(), Answer::Session(SessionAnswer::Open), Reply::Session),
        (
            Request::OpenSession,
            open.clone(),
            Answer::Session(SessionAnswer::Disallowed),
            Reply::SubmissionRefused,
        ),
        (Request::OpenSession, open, Answer::Session(SessionAnswer::Busy), Reply::Busy),
        (Request::ShowStatus, Ask::Status, Answer::Unavailable, Reply::Unavailable),
        (Request::ShowStatus, Ask::Status, Answer::Count(1), Reply::Unavailable),
    ];
    for (request, ask, answer, reply) in cases {
        let mut session = session();
        let step = session.request(request);
        assert_eq!(step, Step { replies: Vec::new(), next: Next::Ask(ask) });
        assert!(reply.is_final());
        assert_eq!(session.answer(answer), finish(reply));
        assert!(matches!(session.request(Request::ShowStatus).next, Next::Ask(Ask::Status)));
    }
}

#[test]
fn an_envelope_is_shown_with_its_place_if_there_is_one() {
    let held = Place { held: true, reason: Some(HoldReason::Unfit(Unfit::ActionGone)), ..PLACE };
    let places = |places| Answer::Places { places, complete: true };
    let cases = [
        (places(vec![(id(1), held)]), Some(held)),
        (places(vec![(id(2), PLACE)]), None),
        (places(Vec::new()), None),
        (Answer::Unavailable, None),
    ];
    for (answer, place) in cases {
        let mut session = session();
        session.request(Request::ShowEnvelope(id(1)));
        let whole = envelope(id(1), "x");
        let found = Answer::Envelopes { looked_at: 1, found: vec![whole.clone()] };
        let step = session.answer(found);
        let Ask::Places { message, after, count } = asked(&step) else { panic!("{step:?}") };
        assert!(*message == Some(id(1).message()) && *after < Some(id(1)) && *count == 1);
        let reply = Reply::Envelope { envelope: Box::new(whole), place };
        assert_eq!(session.answer(answer), finish(reply));
    }
}

#[test]
fn a_listing_while_the_spool_is_read_says_that_it_is_incomplete() {
    for pages in [[true, false], [false, true], [false, false], [true, true]] {
        let mut session = session();
        session.request(Request::List { message: None });
        session.answer(Answer::Places { places: vec![(id(1), PLACE)], complete: pages[0] });
        let found = vec![envelope(id(1), "x")];
        let step = session.answer(Answer::Envelopes { looked_at: 1, found });
        assert!(matches!(step.replies[..], [Reply::Listing(_)]));
        let step = session.answer(Answer::Places { places: Vec::new(), complete: pages[1] });
        let whole = pages == [true, true];
        assert_eq!(step, finish(if whole { Reply::Done } else { Reply::Incomplete }));
    }
}

/// Plays scheduler and queue for a queue of `total` envelopes; the queue looks at `at_once`.
fn list(total: u64, at_once: usize, error: &str, gone: Option<u64>) -> Vec<EnvelopeId> {
    let mut session = session();
    let mut step = session.request(Request::List { message: None });
    let mut listed = Vec::new();
    loop {
        for reply in &step.replies {
            let bytes = postcard::to_stdvec(reply).unwrap();
            assert!(bytes.len() <= limits::FRAME, "{}", bytes.len());
            match reply {
                Reply::Listing(piece) => listed.extend(piece.iter().map(|one| one.summary.id)),
                Reply::Done => return listed,
                other => panic!("{other:?}"),
            }
        }
        step = match asked(&step).clone() {
            Ask::Places { after, count, .. } => {
                let known = (0..total).map(id).filter(|id| Some(*id) > after);
                let places = known.take(count).map(|id| (id, PLACE)).collect();
                session.answer(Answer::Places { places, complete: true })
            }
            Ask::Envelopes(ids) => {
                let looked_at = ids.len().min(at_once);
                let there = |one: &&EnvelopeId| gone.is_none_or(|gone| **one != id(gone));
                let found = ids.iter().take(looked_at).filter(there);
                let found = found.map(|id| envelope(*id, error)).collect();
                session.answer(Answer::Envelopes { looked_at, found })
            }
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn a_listing_has_every_envelope_once_and_in_order() {
    let page = PAGE as u64;
    for total in [0, 1, page - 1, page, page + 1, 3 * page] {
        for at_once in [7, 100, PAGE] {
            let expected: Vec<EnvelopeId> = (0..total).map(id).collect();
            assert_eq!(list(total, at_once, "short", None), expected, "{total} {at_once}");
        }
    }
    let long = "x".repeat(limits::STATUS_TEXT);
    assert_eq!(list(2 * page, PAGE, &long, None).len(), 2 * PAGE);
    assert_eq!(list(3, PAGE, "", Some(1)), [id(0), id(2)]);
}

#[test]
fn a_queue_that_looks_at_nothing_ends_the_listing() {
    let mut session = session();
    session.request(Request::List { message: None });
    session.answer(Answer::Places { places: vec![(id(1), PLACE)], complete: true });
    let step = session.answer(Answer::Envelopes { looked_at: 0, found: Vec::new() });
    assert_eq!(step, finish(Reply::Unavailable));
}

#[test]
fn a_message_comes_in_pieces_or_as_a_file() {
    let message = id(1).message();
    let begin = || {
        let mut session = session();
        let step = session.request(Request::ShowMessage(message));
        assert_eq!(*asked(&step), Ask::Body { message, offset: 0 });
        session
    };
    let piece = |bytes: &[u8]| Answer::Body(BodyAnswer::Piece { size: 5, bytes: bytes.to_vec() });

    let mut session = begin();
    let step = session.answer(piece(b"abc"));
    assert_eq!(step.replies, [Reply::Bytes(b"abc".to_vec())]);
    assert_eq!(*asked(&step), Ask::Body { message, offset: 3 });
    let step = session.answer(piece(b"de"));
    assert_eq!(step.replies, [Reply::Bytes(b"de".to_vec()), Reply::Done]);
    assert_eq!(step.next, Next::Read);

    let mut session = begin();
    session.answer(piece(b"abc"));
    assert_eq!(session.answer(Answer::Body(BodyAnswer::Absent)), finish(Reply::Unavailable));
    assert_eq!(begin().answer(Answer::Body(BodyAnswer::Absent)), finish(Reply::NotFound));
    let file = Answer::Body(BodyAnswer::File { size: 9 });
    assert_eq!(begin().answer(file), finish(Reply::File { size: 9 }));
    assert_eq!(begin().answer(piece(b"")), finish(Reply::Done));
}

#[test]
fn counters_come_in_pieces() {
    let mut session = session();
    session.request(Request::ShowStatistics);
    let counters: Vec<Statistic> =
        (0..600).map(|number| Statistic { name: format!("n{number}"), value: number }).collect();
    let step = session.answer(Answer::Statistics(counters.clone()));
    let (last, pieces) = step.replies.split_last().unwrap();
    assert_eq!(*last, Reply::Done);
    let sent: Vec<Statistic> = pieces
        .iter()
        .flat_map(|piece| match piece {
            Reply::Statistics(piece) => piece.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, counters);
}

#[test]
fn a_client_that_does_not_wait_is_sent_away() {
    let mut session = session();
    session.request(Request::ShowStatus);
    assert_eq!(session.request(Request::ShowStatus), close());
    assert_eq!(Session::new(0, 0).answer(Answer::Done(true)), close());
}
