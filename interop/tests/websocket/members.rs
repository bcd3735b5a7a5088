//! Members that keep the rules: names, rooms, pings, leaving, the end of the server.

use std::time::Duration;

use futures::io::AsyncReadExt;
use futures::{SinkExt, StreamExt};
use ropewalk_interop::chat::Limits;
use tokio_tungstenite::tungstenite::Message;

use super::world::*;

/// Texts reach all members of the room and no other room, joining and leaving are told, and a name
/// is had once in a room. Under many seeds of a rough network.
#[test]
fn a_room_hears_its_members() {
    for seed in 0..12 {
        let world = World::rough(seed);
        let (mut ann, mut bob) = (world.join("/north", "ann"), world.join("/north", "bob"));
        let mut other = world.join("/south", "ann");
        assert_eq!(world.chat.names("/north"), ["ann", "bob"]);
        let (mut ann, bob_left) = world.run(async move {
            assert_eq!(next_text(&mut ann).await, "* bob has joined");
            for number in 0..20 {
                ann.send(Message::text(format!("{number} {}", "yarn ".repeat(number * 10)))).await?;
            }
            for client in [&mut ann, &mut bob] {
                for number in 0..20 {
                    assert_eq!(next_text(client).await, format!("<ann> {number} {}", "yarn ".repeat(number * 10)));
                }
            }
            bob.close(None).await?;
            while bob.next().await.is_some() {}
            let left = next_text(&mut ann).await;
            Ok((ann, left))
        });
        assert_eq!(bob_left, "* bob has left", "seed {seed}");
        assert_eq!(world.chat.names("/north"), ["ann"]);
        world.run(async move {
            other.send(Message::text("alone")).await?;
            assert_eq!(next_text(&mut other).await, "<ann> alone");
            ann.close(None).await?;
            other.close(None).await?;
            while ann.next().await.is_some() {}
            while other.next().await.is_some() {}
            Ok(())
        });
        world.run_until(|| world.chat.sessions() == 0);
    }
}

/// A name that is taken, empty, too long or not printable is asked for again.
#[test]
fn a_bad_name_is_asked_for_again() {
    let world = World::new(Limits::default());
    let _ann = world.join("/", "ann");
    let (connecting, long) = (world.connect(), "n".repeat(33));
    world.run(async move {
        let (mut client, _) = tokio_tungstenite::client_async("ws://a.server/", connecting.await?).await?;
        for name in ["ann", "", "  ", "a\nb", &long] {
            client.send(Message::text(name)).await?;
            assert_eq!(next_text(&mut client).await, "choose another name", "{name:?}");
        }
        client.send(Message::text(&long[1..])).await?;
        assert_eq!(next_text(&mut client).await, format!("* {} has joined", &long[1..]));
        Ok(())
    });
}

/// A member that says nothing for hours stays, because its client answers pings. Pings of a client
/// are answered too.
#[test]
fn pings_are_answered() {
    let world = World::new(Limits::default());
    let mut ann = world.join("/", "ann");
    let mut read = world.client.spawn(async move {
        ann.send(Message::Ping("are you there?".into())).await?;
        let (mut pings, mut pongs) = (0, 0);
        while pings < 400 {
            match ann.next().await.expect("it stays")? {
                Message::Ping(_) => pings += 1,
                Message::Pong(payload) => {
                    assert_eq!(payload, "are you there?");
                    pongs += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        ropewalk::Result::Ok((ann, pongs))
    });
    world.network.run_until(Duration::from_secs(20 * 401), || read.is_called()).unwrap();
    let (_ann, pongs) = read.take_result().unwrap().unwrap();
    assert_eq!((pongs, world.chat.sessions()), (1, 1));
}

/// The end of the server: members get code 1001 behind the texts that were queued for them, halves
/// of handshakes are closed, a peer that does not answer is aborted, and new connections are not
/// served.
#[test]
fn a_drain_tells_all_members() {
    let world = World::new(Limits::default());
    let (mut ann, bob) = (world.join("/", "ann"), world.join("/", "bob"));
    let mut silent = world.connect_by_hand();
    let connecting = world.connect();
    let mut half_open = world.run(connecting);
    world.run_until(|| world.chat.sessions() == 4);
    let ann = world.run(async move {
        assert_eq!(next_text(&mut ann).await, "* bob has joined");
        ann.send(Message::text("last")).await?;
        assert_eq!(next_text(&mut ann).await, "<ann> last");
        Ok(ann)
    });

    let drained = world.chat.drain();
    assert!(!drained.is_called());
    let codes = world.run(async move { Ok((close_code(ann).await, close_code(bob).await)) });
    assert_eq!(codes, (1001, 1001));
    // The handshake that had not begun was closed.
    let left = world.run(async move {
        let (half, code) = (half_open.read(&mut [0; 10]).await?, read_code(&mut silent).await?);
        // It does not answer, and is aborted.
        let error = silent.read(&mut [0; 10]).await.expect_err("a reset").kind();
        Ok((half, code, error))
    });
    assert_eq!(left, (0, 1001, std::io::ErrorKind::ConnectionReset));
    world.run_until(|| drained.is_called());
    assert_eq!(world.chat.sessions(), 0);
    let refused = world.connect().add_both(|connected| Ok(connected.is_err()));
    assert!(world.run(refused), "the port is closed");
}
