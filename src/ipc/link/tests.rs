//! Channels, both ends in one process.

use super::*;

type Numbers = Link<u32, u32>;

fn pair(window: u32) -> (Numbers, Numbers, mpsc::UnboundedReceiver<Arrived<u32, u32>>) {
    let (near, far) = platform::fd::socketpair().unwrap();
    let (near, _) = Link::open(near, window).unwrap();
    let (far, arrivals) = Link::open(far, window).unwrap();
    (near, far, arrivals)
}

/// Answers each request with its number plus one.
fn echo(mut arrivals: mpsc::UnboundedReceiver<Arrived<u32, u32>>) {
    tokio::spawn(async move {
        while let Some(arrived) = arrivals.recv().await {
            let answer = arrived.message + 1;
            arrived.responder.reply(&answer, arrived.descriptor).unwrap();
        }
    });
}

#[tokio::test]
async fn many_requests_pass_a_channel_of_one_credit() {
    for window in [1, 2, 100] {
        let (near, far, arrivals) = pair(window);
        echo(arrivals);
        let asked: Vec<_> = (0..500_u32)
            .map(|number| {
                let near = near.clone();
                tokio::spawn(async move { near.request(&number, None).await.unwrap().0 })
            })
            .collect();
        for (number, answer) in (0_u32..).zip(asked) {
            assert_eq!(answer.await.unwrap(), number + 1);
        }
        drop(far);
    }
}

#[tokio::test]
async fn notices_stop_at_the_window_until_they_are_dealt_with() {
    let (near, _far, mut arrivals) = pair(4);
    for number in 0..4 {
        near.notice(&number, None).await.unwrap();
    }
    let fifth = near.notice(&4, None);
    let patience = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(patience, fifth).await.is_err());
    drop(arrivals.recv().await.unwrap());
    near.notice(&4, None).await.unwrap();
}

// What is queued while the socket has no room must not wait for the next message.
#[tokio::test]
async fn a_burst_above_the_socket_buffer_arrives_whole() {
    // Below a quarter of the window, so that no credits come back and wake the sender.
    const COUNT: usize = 200;
    for round in 0..20_usize {
        let (near, far) = platform::fd::socketpair().unwrap();
        for end in [&near, &far] {
            platform::fd::set_socket_buffers(end.as_fd(), 8 * 1024).unwrap();
        }
        let (near, _) = Link::<Vec<u16>, u32>::open(near, 1000).unwrap();
        let (_far, mut arrivals) = Link::<u32, Vec<u16>>::open(far, 1000).unwrap();
        tokio::spawn(async move {
            for number in 0..COUNT {
                near.notice(&vec![300; 500 + round], None).await.unwrap();
                if number % 40 == 39 {
                    tokio::task::yield_now().await;
                }
            }
            // The sender stays, and says nothing more.
            std::future::pending::<()>().await;
        });
        for number in 0..COUNT {
            let patience = std::time::Duration::from_secs(10);
            let arrived = tokio::time::timeout(patience, arrivals.recv()).await;
            assert!(arrived.is_ok_and(|arrived| arrived.is_some()), "{round}: {number}");
        }
    }
}

#[tokio::test]
async fn a_descriptor_goes_with_its_message() {
    use std::io::{Read as _, Write as _};
    let (near, _far, arrivals) = pair(8);
    echo(arrivals);
    let (reader, writer) = platform::fd::pipe().unwrap();
    let (answer, passed) = near.request(&7, Some(writer)).await.unwrap();
    assert_eq!(answer, 8);
    std::fs::File::from(passed.unwrap()).write_all(b"through").unwrap();
    let mut text = String::new();
    std::fs::File::from(reader).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[tokio::test]
async fn a_dropped_request_is_refused_and_a_lost_channel_fails_what_waits() {
    let (near, far, mut arrivals) = pair(8);
    let asking = near.clone();
    let asked = tokio::spawn(async move { asking.request(&1, None).await });
    drop(arrivals.recv().await.unwrap());
    assert_eq!(asked.await.unwrap().unwrap_err(), LinkError::Refused);

    let asking = near.clone();
    let asked = tokio::spawn(async move { asking.request(&1, None).await });
    let waiting = arrivals.recv().await.unwrap();
    far.close();
    assert_eq!(asked.await.unwrap().unwrap_err(), LinkError::Closed);
    drop(waiting);
}

// Design: section 2, a sender that breaks the rules loses its channel.
#[tokio::test]
async fn more_requests_than_credits_end_the_channel() {
    let (near, far) = platform::fd::socketpair().unwrap();
    let (_link, mut arrivals) = Link::<u32, u32>::open(far, 2).unwrap();
    let mut out = Outgoing::default();
    for number in 1..=3 {
        out.push(Kind::Request, number, &5_u32, None).unwrap();
    }
    platform::fd::send_vectored(near.as_fd(), &[io::IoSlice::new(out.next_run().0)], None).unwrap();
    let first = arrivals.recv().await;
    let second = arrivals.recv().await;
    assert!(first.is_some() && second.is_some());
    assert!(arrivals.recv().await.is_none());
}
