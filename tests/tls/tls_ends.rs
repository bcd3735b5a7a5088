//! How connections over TLS end: on a pump, some with a peer that is the TLS library alone.

use std::time::Duration;

use crate::common::tls::*;
use ropewalk::Failure;
use ropewalk::error::ConnectionClosed;
use ropewalk::testing::PumpOptions;
use ropewalk::tls::Tls;

/// F52, A11: a peer that ends the connection without ending TLS has cut something short, whatever
/// came before, and whether or not the protocol knows half-closes; one that ends TLS has not.
#[test]
fn truncation() {
    for (half_close, notify) in [(false, false), (true, false), (false, true), (true, true)] {
        let (authority, _, server_tls) = usual();
        let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
        let server = if half_close { server.half_close() } else { server };
        let pump = connect(client, server);
        let transport = pump.client().transport();
        let mut library = Library::client(&authority, "example.org");
        library.talk(&pump, transport, &raw);
        transport.write(&library.write(b"first half"));
        if notify {
            library.connection.send_close_notify();
            transport.write(&library.send());
        }
        transport.lose_write_connection();
        pump.flush();
        assert_eq!(serving.text(), "first half");
        match (half_close, notify) {
            (_, false) => {
                let reason = serving.reason();
                assert!(matches!(reason.check(), Some(ConnectionClosed::Truncated)), "{reason}");
                assert_eq!(serving.log.count("read lost"), 0);
            }
            (true, true) => assert_eq!(serving.log.all(), ["made", "secured", "data", "read lost"]),
            (false, true) => assert_eq!(serving.log.all(), ["made", "secured", "data", CLEAN]),
        }
    }
}

/// F52: what came before the cut is delivered first, even if reading was paused; and what was
/// written is still sent.
#[test]
fn a_cut_waits_behind_what_was_held_back() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
    let pump = connect(
        client,
        server.secured(|transport| {
            transport.pause_producing();
            Ok(())
        }),
    );
    let transport = pump.client().transport();
    let mut library = Library::client(&authority, "example.org");
    transport.write(&library.send());
    pump.flush();
    library.take(&raw);
    // The end of the handshake, data, and the cut come together, while the server still reads for
    // the handshake.
    transport.write(&library.write(b"held"));
    transport.lose_write_connection();
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured"]);
    pump.server().transport().write(b"last words");
    pump.server().transport().resume_producing();
    pump.flush();
    assert_eq!(serving.text(), "held");
    assert!(matches!(serving.reason().check(), Some(ConnectionClosed::Truncated)), "{}", serving.reason());
    library.take(&raw);
    assert_eq!(library.plain, b"last words");
}

/// F57: our direction of TLS ends with `lose_write_connection`, once, behind what was written; the
/// other one goes on until `lose_connection`, or until it has ended too.
#[test]
fn half_closes() {
    for lose in [true, false] {
        let (_, client_tls, server_tls) = usual();
        let ((client, asking), (server, serving)) = (tls_side(client_tls), tls_side(server_tls));
        let pump = connect(client.half_close(), server.half_close());
        pump.client().transport().write(b"the whole question");
        pump.client().transport().lose_write_connection();
        pump.flush();
        assert_eq!(asking.log.all(), ["made", "secured", "write lost"]);
        assert_eq!(serving.log.all(), ["made", "secured", "data", "read lost"]);
        pump.client().transport().write(b"too late");
        pump.server().transport().write(b"an answer");
        pump.flush();
        assert_eq!(asking.text(), "an answer");
        pump.client().transport().lose_write_connection();
        if lose {
            pump.client().transport().lose_connection();
        } else {
            pump.server().transport().lose_write_connection();
        }
        pump.flush();
        pump.server().transport().lose_connection();
        pump.flush();
        assert_eq!(serving.text(), "the whole question");
        assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
        assert_eq!(serving.log.all().last().map(String::as_str), Some(CLEAN));
    }
}

/// F57: our direction may be ended before the handshake is done, with something to be sent or
/// without: it ends when that is.
#[test]
fn a_half_close_during_the_handshake() {
    for write in [true, false] {
        let (_, client_tls, server_tls) = usual();
        let ((client, asking), (server, serving)) = (side(), tls_side(server_tls));
        let client = client.half_close().made(move |transport| {
            transport.start_tls(&client_tls)?;
            if write {
                transport.write(b"all of it");
            }
            transport.lose_write_connection();
            Ok(())
        });
        let server = server.half_close().read_lost(|transport| {
            transport.write(b"an answer");
            transport.lose_connection();
            Ok(())
        });
        let pump = PumpOptions::new().room(100).connect(client, server);
        pump.flush();
        assert_eq!(serving.text(), if write { "all of it" } else { "" });
        assert_eq!(asking.text(), "an answer");
        assert_eq!(asking.log.all(), ["made", "secured", "write lost", "data", "read lost", CLEAN]);
        assert_eq!(serving.log.all().last().map(String::as_str), Some(CLEAN));
    }
}

/// A peer that has all that was written, and goes before it has our end of TLS, has missed nothing.
#[test]
fn a_peer_that_does_not_wait_for_the_end() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
    let pump = PumpOptions::new().room(10).connect(client, server);
    let transport = pump.client().transport();
    Library::client(&authority, "example.org").talk(&pump, transport, &raw);
    transport.pause_producing();
    pump.flush();
    pump.server().transport().lose_connection();
    pump.flush();
    assert!(pump.server().transport().queued_bytes() > 0, "there is no room for it");
    transport.abort_connection();
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured", CLEAN]);
}

/// F54: a peer that never ends its direction holds nothing up: `connection_lost` comes as soon as
/// everything was sent, and the socket is closed 5 s later.
#[test]
fn a_close_notify_that_is_never_answered() {
    let (authority, _, server_tls) = usual();
    let (pump, raw, serving) = with_library_client(server_tls);
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, pump.client().transport(), &raw);
    pump.server().transport().write(b"last words");
    pump.server().transport().lose_connection();
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured", CLEAN]);
    library.take(&raw);
    assert_eq!(library.plain, b"last words");
    pump.advance(Duration::from_millis(4999));
    pump.client().transport().write(b"still here");
    pump.flush();
    assert!(pump.client().lost().is_none(), "it lingers");
    pump.advance(Duration::from_millis(1));
    pump.client().transport().write(b"still here");
    pump.flush();
    assert!(matches!(raw.reason().check(), Some(ConnectionClosed::Reset { .. })), "{}", raw.reason());
}

/// F53, A9: a handshake has 30 s, however the peer trickles, or the configured time.
#[test]
fn a_handshake_that_stalls() {
    let (authority, client_tls, server_tls) = usual();
    let short = Duration::from_secs(3);
    for (tls, limit) in [
        (Tls::from(server_tls.clone()), Duration::from_secs(30)),
        (client_tls.clone().into(), Duration::from_secs(30)),
        (server_tls.clone().with_handshake_timeout(Some(short)).into(), short),
        (client_tls.clone().with_handshake_timeout(Some(short)).into(), short),
    ] {
        let ((server, serving), (client, _)) = (tls_side(tls), side());
        let pump = connect(client, server);
        let hello = [0x16, 3, 1, 1, 0];
        for byte in &hello {
            pump.client().transport().write(&[*byte]);
            pump.advance(limit / 6);
        }
        assert_eq!(serving.log.all(), ["made"]);
        pump.advance(limit / 6 - Duration::from_millis(1));
        assert_eq!(serving.log.all(), ["made"]);
        pump.advance(Duration::from_millis(1));
        assert_eq!(serving.error(), format!("the TLS handshake timed out after {limit:?}"));
    }
    let (pump, _raw, serving) = with_library_client(server_tls.with_handshake_timeout(None));
    pump.advance(Duration::from_secs(10_000));
    assert_eq!(serving.log.all(), ["made"]);
    // One that is done has no limit any more.
    let (pump, asking, _) = play(client_tls, authority.server(&["example.org"]));
    pump.advance(Duration::from_secs(10_000));
    assert_eq!(asking.log.all(), ["made", "secured"]);
}

/// F55: a connection that is lost during the handshake closes at once if there is nothing to be
/// sent, and otherwise when that was sent; one that is aborted does not wait.
#[test]
fn closing_during_the_handshake() {
    for (write, lose, expected) in [
        (false, true, CLEAN),
        (true, true, CLEAN),
        (false, false, "lost: the connection was aborted"),
        (true, false, "lost: the connection was aborted"),
    ] {
        let (authority, client_tls, _) = usual();
        let (pump, asking, raw) = with_library_server(client_tls);
        pump.flush();
        let transport = pump.client().transport();
        if write {
            transport.write(b"what has to be said");
        }
        if lose {
            transport.lose_connection();
        } else {
            transport.abort_connection();
        }
        pump.flush();
        let waits = write && lose;
        assert_eq!(asking.log.is_over(), !waits);
        let mut library = Library::server(&authority, "example.org");
        if waits {
            library.talk(&pump, pump.server().transport(), &raw);
            assert_eq!(library.plain, b"what has to be said");
        }
        assert_eq!(asking.log.all().last().map(String::as_str), Some(expected));
    }
}

/// Bytes behind the peer's end of TLS are dropped.
#[test]
fn behind_a_close_notify() {
    let (authority, _, server_tls) = usual();
    let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
    let pump = connect(client, server.half_close());
    let transport = pump.client().transport();
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, transport, &raw);
    library.connection.send_close_notify();
    transport.write(&library.send());
    transport.write(&b"plain text behind it".repeat(10_000));
    pump.flush();
    assert_eq!(serving.log.all(), ["made", "secured", "read lost"]);
    pump.server().transport().write(b"still heard");
    pump.flush();
    library.take(&raw);
    assert_eq!(library.plain, b"still heard");
}

/// A callback that fails closes the connection with TLS's own end, behind what was written.
#[test]
fn a_callback_that_fails() {
    let (_, client_tls, server_tls) = usual();
    let ((client, asking), (server, serving)) = (side_that_writes(client_tls), tls_side(server_tls));
    let server = server.data(|transport, _| {
        transport.write(b"up to here");
        Err(Failure::message("the disk is full"))
    });
    let pump = connect(client, server);
    pump.flush();
    assert_eq!(serving.log.all().last().map(String::as_str), Some("lost: the disk is full"));
    assert_eq!(asking.text(), "up to here");
    assert_eq!(asking.log.all().last().map(String::as_str), Some(CLEAN));
}
