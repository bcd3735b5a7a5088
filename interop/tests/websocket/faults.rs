//! Members that break the rules: each is told so, and the others go on.

use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::{SinkExt, StreamExt};
use ropewalk_interop::chat::Limits;
use tokio_tungstenite::tungstenite::Message;

use super::world::*;

/// Each broken rule has its close code, the other members are told that the peer has left, and hear
/// of nothing else.
#[test]
fn a_broken_rule_has_its_code() {
    let world = World::new(Limits { message_bytes: 200, ..Limits::default() });
    let long = [b'x'; 201];
    let fragments = |payload: &[u8]| [frame(0x01, payload), frame(0x80, payload)].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("text that is not UTF-8", frame(0x81, b"\xff"), 1007),
        ("text that is not UTF-8 across fragments", [frame(0x01, b"\xc3"), frame(0x80, b"x")].concat(), 1007),
        ("a message that is too long", frame(0x81, &long), 1009),
        ("fragments that are too long", fragments(&long[..101]), 1009),
        // Its length alone is over the limit: the payload never comes.
        ("a frame of 2^62 bytes", [&[0x81, 0xff, 0x40][..], &[0; 11]].concat(), 1009),
        ("a binary message", frame(0x82, b"x"), 1003),
        ("a frame without a mask", b"\x81\x01x".to_vec(), 1002),
        ("a reserved bit", frame(0xc1, b"x"), 1002),
        ("a reserved opcode", frame(0x83, b"x"), 1002),
        ("a fragment without a beginning", frame(0x80, b"x"), 1002),
        ("a message inside of another", [frame(0x01, b"x"), frame(0x81, b"x")].concat(), 1002),
        ("a ping in fragments", frame(0x09, b"x"), 1002),
        ("a ping that is too long", frame(0x89, &[0; 126]), 1002),
        ("a close frame of one byte", frame(0x88, b"\x03"), 1002),
        ("a close frame with a reserved code", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("a close frame with a reason that is not UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
    ];
    let mut ann = world.join("/", "ann");
    for (text, bytes, expected) in cases {
        let mut peer = world.connect_by_hand();
        let code = world.run(async move {
            peer.write_all(&frame(0x81, b"bob")).await?;
            peer.write_all(&bytes).await?;
            read_code(&mut peer).await
        });
        assert_eq!(code, expected, "{text}");
        ann = world.run(async move {
            assert_eq!(next_text(&mut ann).await, "* bob has joined", "{text}");
            assert_eq!(next_text(&mut ann).await, "* bob has left", "{text}");
            Ok(ann)
        });
    }
    // Messages of the full length are heard, whole or in fragments.
    let mut peer = world.connect_by_hand();
    let text = world.run(async move {
        peer.write_all(&frame(0x81, b"bob")).await?;
        peer.write_all(&fragments(&[b'x'; 100])).await?;
        assert_eq!(next_text(&mut ann).await, "* bob has joined");
        let text = next_text(&mut ann).await;
        drop(peer);
        assert_eq!(next_text(&mut ann).await, "* bob has left", "without a close frame, too");
        Ok(text)
    });
    assert_eq!(text, format!("<bob> {}", "x".repeat(200)));
    world.run_until(|| world.chat.sessions() == 0);
}

/// A peer that answers no ping is told code 1011, and aborted when it does not answer that either.
#[test]
fn a_peer_that_is_gone_is_noticed() {
    let world = World::new(Limits::default());
    let mut gone = world.connect_by_hand();
    world.run_until(|| world.chat.sessions() == 1);
    let (begun, clock) = (now(&world), world.client.clone());
    let (pings, code, gone, after) = world.run(async move {
        use ropewalk::Clock;
        let (mut frames, mut pings, mut code) = (Vec::new(), 0, None);
        let mut buffer = [0; 100];
        let error = loop {
            match gone.read(&mut buffer).await {
                Ok(0) => panic!("it is aborted"),
                Ok(count) => frames.extend_from_slice(&buffer[..count]),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let mut rest = &frames[..];
        while let [kind, length, tail @ ..] = rest {
            let (payload, tail) = tail.split_at(usize::from(*length));
            match kind {
                0x89 => pings += 1,
                0x88 => code = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("a frame of type {other:#x}"),
            }
            rest = tail;
        }
        Ok((pings, code, gone, clock.timers().seconds()))
    });
    assert_eq!((pings, code), (1, Some(1011)));
    let limits = Limits::default();
    let took = after - begun;
    let expected = limits.ping_interval * 2 + limits.closing;
    assert!(took >= expected && took < expected + Duration::from_secs(1), "{took:?}");
    world.run_until(|| world.chat.sessions() == 0);
    drop(gone);
}

/// Simulated time.
fn now(world: &World) -> Duration {
    use ropewalk::Clock;
    world.client.timers().seconds()
}

/// A member that reads nothing is cut off when its queue is full. The others get each text, and are
/// told that it has left.
#[test]
fn a_slow_reader_is_cut_off() {
    let world = World::new(Limits { queue_bytes: 10_000, ..Limits::default() });
    let (slow, mut ann, mut bob) = (world.join("/", "slow"), world.join("/", "ann"), world.join("/", "bob"));
    // Beside its own queue, the stream's 64 KiB and the network's buffers take a part.
    let texts = world.run(async move {
        let mut heard = Vec::new();
        assert_eq!(next_text(&mut ann).await, "* bob has joined");
        for number in 0.. {
            assert!(number < 2_000, "it is not cut off");
            ann.send(Message::text(format!("{number} {}", "x".repeat(5_000)))).await?;
            for client in [&mut ann, &mut bob] {
                loop {
                    let text = next_text(client).await;
                    if text.starts_with('*') {
                        heard.push(text);
                        continue;
                    }
                    assert!(text.starts_with(&format!("<ann> {number} xxx")));
                    break;
                }
            }
            if heard.len() == 2 {
                break;
            }
        }
        Ok(heard)
    });
    assert_eq!(texts, ["* slow has left", "* slow has left"]);
    world.run_until(|| world.chat.sessions() == 0);
    drop(slow);
}

/// A handshake that is not finished is closed when its time is over, whatever part of it came, and
/// one that is none at once. A member meanwhile is not disturbed, and not limited.
#[test]
fn a_half_open_handshake_is_closed() {
    let world = World::new(Limits::default());
    let ann = world.join("/", "ann");
    let begun = now(&world);
    for part in [&b""[..], b"GET", &REQUEST[..REQUEST.len() - 1]] {
        let (connecting, clock) = (world.connect(), world.client.clone());
        let ended = world.run(async move {
            use ropewalk::Clock;
            let mut stream = connecting.await?;
            stream.write_all(part).await?;
            let read = stream.read(&mut [0; 10]).await;
            assert!(read.is_err(), "it is aborted");
            Ok(clock.timers().seconds())
        });
        assert!(ended - begun >= Limits::default().handshake);
    }
    for bad in [&b"\x16\x03\x01 no HTTP"[..], b"POST / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let (connecting, begun) = (world.connect(), now(&world));
        world.run(async move {
            let mut stream = connecting.await?;
            stream.write_all(bad).await?;
            assert_eq!(stream.read(&mut [0; 10]).await?, 0);
            Ok(())
        });
        assert!(now(&world) - begun < Duration::from_secs(1));
    }
    assert_eq!(world.chat.sessions(), 1);
    let mut ann = ann;
    world.run(async move {
        ann.send(Message::text("still here")).await?;
        assert_eq!(next_text(&mut ann).await, "<ann> still here");
        ann.close(None).await?;
        while ann.next().await.is_some() {}
        Ok(())
    });
}

/// No more connections are served than the limit says.
#[test]
fn connections_are_limited() {
    let world = World::new(Limits { connections: 2, ..Limits::default() });
    let (ann, bob) = (world.join("/", "ann"), world.join("/", "bob"));
    let connecting = world.connect();
    let read = world.run(async move { Ok(connecting.await?.read(&mut [0; 10]).await?) });
    assert_eq!((read, world.chat.sessions()), (0, 2));
    drop(bob);
    world.run_until(|| world.chat.sessions() == 1);
    let carol = world.join("/", "carol");
    drop((ann, carol));
    world.run_until(|| world.chat.sessions() == 0);
}
