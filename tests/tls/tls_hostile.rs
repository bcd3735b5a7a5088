//! Peers that break the rules of TLS, or attack: on a pump, with a peer that is the TLS library
//! alone, or bytes alone.

use crate::common::tls::*;
use ropewalk::error::ConnectionClosed;
use ropewalk::tls::Tls;

/// A13: bytes that are injected between the request for TLS and the handshake make that fail, and
/// never reach the protocol.
#[test]
fn starttls_injection() {
    for paused in [true, false] {
        let (authority, _, server_tls) = usual();
        let ((client, _raw), (server, serving)) = (side(), side());
        let server = server.data(move |transport, data| {
            if data == b"STARTTLS\n" {
                transport.start_tls(&server_tls)?;
                if paused {
                    transport.pause_producing();
                }
            }
            Ok(())
        });
        let pump = connect(client, server);
        pump.client().transport().write(b"STARTTLS\n");
        pump.flush();
        let mut library = Library::client(&authority, "example.org");
        pump.client().transport().write(b"DELETE everything\n");
        pump.client().transport().write(&library.send());
        pump.flush();
        assert_eq!(serving.text(), "STARTTLS\n");
        assert!(serving.error().starts_with("the peer does not speak TLS"), "{}", serving.error());
    }
}

/// Garbage in the place of a handshake ends the connection with an error that says so, in either
/// role; the peer receives an alert.
#[test]
fn garbage_instead_of_a_handshake() {
    let (_, client_tls, server_tls) = usual();
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    let (zeros, ones, random) = (
        vec![0; 70_000],
        vec![255; 70_000],
        (0..70_000_u32).map(|at| (at.wrapping_mul(at) >> 5) as u8).collect::<Vec<_>>(),
    );
    for tls in [Tls::from(client_tls), Tls::from(server_tls)] {
        for garbage in
            [&http[..], &zeros, &ones, &random, b"\x16\x03\x01\x00\x04\xff\xff\xff\xff", b"\x17\x03\x03\x00\x01\x00"]
        {
            let ((server, serving), (client, raw)) = (tls_side(tls.clone()), side());
            let pump = connect(client, server);
            pump.client().transport().write(garbage);
            pump.flush();
            let error = serving.error();
            assert!(error.contains("does not speak TLS") || error.contains("violated the TLS protocol"), "{error}");
            let alert = raw.received.borrow();
            assert!(alert.windows(5).any(|record| record == b"\x15\x03\x03\x00\x02"), "no alert: {alert:?}");
        }
    }
}

/// A11: a handshake that ends anywhere, by an end of the stream, by a `close_notify`, or by a
/// reset, ends the connection with a reason; and one that comes a byte at a time is as good as any.
#[test]
fn a_hello_that_is_cut_anywhere() {
    let (authority, _, server_tls) = usual();
    let hello = Library::client(&authority, "example.org").send();
    for cut in 0..=hello.len() {
        for how in 0..3 {
            let (pump, _raw, serving) = with_library_client(server_tls.clone());
            let transport = pump.client().transport();
            transport.write(&hello[..cut]);
            match how {
                0 => transport.lose_write_connection(),
                1 => {
                    transport.write(b"\x15\x03\x03\x00\x02\x01\x00");
                    transport.lose_write_connection();
                }
                _ => {
                    pump.flush();
                    transport.abort_connection();
                }
            }
            pump.flush();
            match how {
                2 => assert!(matches!(serving.reason().check(), Some(ConnectionClosed::Reset { .. }))),
                _ => drop(serving.error()),
            }
            assert_eq!(serving.log.count("secured") + serving.log.count("data"), 0);
        }
    }
}

/// A `ClientHello` with a name of 1 MiB, in as many records as that takes, is refused before it was
/// kept: nothing that a peer says before the handshake is done takes more than a handshake message
/// may have.
#[test]
fn a_megabyte_of_names() {
    let (_, _, server_tls) = usual();
    let (pump, _raw, serving) = with_library_client(server_tls);
    // A handshake message of type 1 with a length of 1 MiB, in records of 16 KiB.
    let mut message = vec![1, 0x10, 0, 0, 3, 3];
    message.resize(4 + (1 << 20), b'a');
    let mut sent = 0;
    for piece in message.chunks(16 * 1024) {
        let mut record = vec![0x16, 3, 1];
        record.extend((piece.len() as u16).to_be_bytes());
        record.extend_from_slice(piece);
        pump.client().transport().write(&record);
        pump.flush();
        if serving.log.is_over() {
            break;
        }
        sent += piece.len();
    }
    assert!(serving.log.is_over() && sent <= 64 * 1024, "{sent} bytes were taken");
    assert!(serving.error().contains("does not speak TLS"), "{}", serving.error());
}

/// F56: floods of what is allowed once: empty records, alerts that are warnings. They end the
/// connection, or cost nothing.
#[test]
fn floods() {
    let (authority, _, server_tls) = usual();
    let flood = |record: &[u8], after_the_handshake: bool| {
        let (pump, raw, serving) = with_library_client(server_tls.clone());
        let transport = pump.client().transport();
        if after_the_handshake {
            Library::client(&authority, "example.org").talk(&pump, transport, &raw);
        }
        for _ in 0..200 {
            transport.write(&record.repeat(100));
            pump.flush();
        }
        assert_eq!(serving.log.count("data"), 0);
        serving
    };
    for (record, ready) in [
        (&b"\x16\x03\x03\x00\x00"[..], false),
        (b"\x15\x03\x03\x00\x02\x01\x5a", false),
        (b"\x14\x03\x03\x00\x01\x01", false),
        (b"\x14\x03\x03\x00\x01\x01", true),
        (b"\x17\x03\x03\x00\x00", true),
        (b"\x15\x03\x03\x00\x02\x01\x5a", true),
    ] {
        assert!(flood(record, ready).log.is_over(), "{record:?} {ready}");
    }
}

/// F56, A10: a peer that has its keys renewed all the time, and reads nothing, makes us keep
/// nothing for it.
#[test]
fn a_flood_of_key_updates() {
    let (authority, _, server_tls) = usual();
    let (pump, raw, serving) = with_library_client(server_tls);
    let transport = pump.client().transport();
    let mut library = Library::client(&authority, "example.org");
    library.talk(&pump, transport, &raw);
    pump.client().transport().pause_producing();
    for _ in 0..1000 {
        if library.connection.refresh_traffic_keys().is_err() {
            break;
        }
        transport.write(&library.send());
        pump.flush();
        assert!(pump.server().transport().queued_bytes() + pump.server().in_flight() < 70_000);
    }
    assert!(serving.log.is_over() || pump.server().transport().queued_bytes() < 1000);
}

/// A record that was changed on the way ends the connection, whatever has been ended before, and
/// never brings the engine down.
#[test]
fn a_record_that_was_changed() {
    for shut in [true, false] {
        let (authority, _, server_tls) = usual();
        let ((client, raw), (server, serving)) = (side(), tls_side(server_tls));
        let pump = connect(client.half_close(), server.half_close());
        let transport = pump.client().transport();
        let mut library = Library::client(&authority, "example.org");
        library.talk(&pump, transport, &raw);
        if shut {
            pump.server().transport().lose_write_connection();
            pump.flush();
        }
        let mut record = library.write(b"one hundred");
        let last = record.len() - 1;
        record[last] ^= 1;
        transport.write(&record);
        pump.flush();
        // Having ended its direction, the library trips over an assertion of its own, which it has
        // in debug builds only.
        let trips = shut && cfg!(debug_assertions);
        let expected = if trips { "TLS failed" } else { "the peer violated the TLS protocol: cannot decrypt" };
        assert!(serving.error().starts_with(expected), "{}", serving.error());
        assert_eq!(serving.text(), "");
    }
}
