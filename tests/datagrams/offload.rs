//! The system carries runs of datagrams as one. Neither end sees it: the datagrams are those that
//! were written, in order, each with its length.

use std::rc::Rc;

use super::*;

/// Options of a port that collects its writes and has runs carried as one.
fn offloaded() -> UdpOptions {
    UdpOptions::new().segmentation_offload(true).collect_writes(true).receive_buffer_bytes(1 << 20)
}

/// Datagrams of several lengths: runs that end with a shorter one, empty ones, and a run that is
/// longer than the system carries as one.
fn datagrams() -> Vec<Vec<u8>> {
    let lengths = [vec![1_200; 70], vec![300], vec![0; 2], vec![64; 10], vec![65], vec![9_000; 9], vec![1]].concat();
    lengths.iter().enumerate().map(|(number, length)| vec![number as u8; *length]).collect()
}

/// Starts a port that answers one question with all of the datagrams.
fn answering(reactor: &Reactor, at: &str, options: &UdpOptions) -> DatagramTransport {
    let protocol = Recorder::new(&Log::default()).received(|transport, _, peer| {
        for datagram in datagrams() {
            transport.write(&datagram, peer)?;
        }
        Ok(())
    });
    bind_with(reactor, at, options, protocol)
}

/// Both ends, and one of them alone, on both families.
#[test]
fn datagrams_arrive_as_they_were_written() {
    let plain = UdpOptions::new().receive_buffer_bytes(1 << 20);
    for at in LOCAL {
        for (sending, receiving) in
            [(offloaded(), offloaded()), (offloaded(), plain.clone()), (plain.clone(), offloaded())]
        {
            on_each(|reactor| {
                let server = answering(&reactor, at, &sending);
                let received = Rc::new(RefCell::new(Vec::new()));
                let seen = Rc::clone(&received);
                let protocol = Recorder::new(&Log::default()).received(move |_, data, _| {
                    seen.borrow_mut().push(data.to_vec());
                    Ok(())
                });
                let client = bind_with(&reactor, at, &receiving, protocol);
                client.write(b"go", &server.host()).expect("it is sent");
                run_until(&reactor, || received.borrow().len() == datagrams().len());
                assert!(*received.borrow() == datagrams(), "{at}: other datagrams");
                assert_eq!((server.counts().sent, server.counts().failed), (datagrams().len() as u64, 0));
                assert_eq!(client.counts().received, datagrams().len() as u64);
            });
        }
    }
}

/// A peer that knows nothing of runs gets plain datagrams.
#[test]
fn a_plain_socket_gets_plain_datagrams() {
    on_each(|reactor| {
        let server = answering(&reactor, LOCAL[0], &offloaded());
        let (peer, _) = peer_at(LOCAL[0]);
        peer.send_to(b"go", address_of(&server)).expect("it is sent");
        run_until(&reactor, || server.counts().sent == datagrams().len() as u64);
        let mut room = [0; 10_000];
        // The rest may be lost, as on a network: it is more than the peer's buffer may take.
        for expected in datagrams().iter().take(70) {
            let length = peer.recv(&mut room).expect("a datagram");
            assert!(room[..length] == expected[..], "a datagram of {length} bytes");
        }
    });
}

/// A datagram of a run that is longer than the port takes is told as truncated, with its length.
#[test]
fn datagrams_of_a_run_are_truncated_one_by_one() {
    on_each(|reactor| {
        let log = Log::default();
        let receiver = bind_with(&reactor, LOCAL[0], &offloaded().max_packet_bytes(100), Recorder::new(&log));
        let to = receiver.host();
        let sending = Recorder::new(&Log::default()).received(move |transport, _, _| {
            for length in [200, 200, 50] {
                transport.write(&vec![b'x'; length], &to)?;
            }
            Ok(())
        });
        let sender = bind_with(&reactor, LOCAL[0], &offloaded(), sending);
        let (peer, _) = peer_at(LOCAL[0]);
        peer.send_to(b"go", address_of(&sender)).expect("it is sent");
        run_until(&reactor, || log.has("received 50 bytes"));
        let truncated = "truncated 100 bytes of Some(200)";
        assert_eq!(log.all(), ["started", truncated, truncated, "received 50 bytes"]);
        assert_eq!((receiver.counts().truncated, receiver.counts().received), (2, 3));
    });
}

/// A pause in the midst of a run holds its rest back.
#[test]
fn a_pause_holds_the_rest_of_a_run_back() {
    on_each(|reactor| {
        let log = Log::default();
        let protocol = Recorder::new(&log).received(|transport, data, _| {
            if data == b"03" {
                transport.pause_receiving();
            }
            Ok(())
        });
        let receiver = bind_with(&reactor, LOCAL[0], &offloaded(), protocol);
        let to = receiver.host();
        let sending = Recorder::new(&Log::default()).received(move |transport, _, _| {
            (0..20).try_for_each(|number| Ok(transport.write(format!("{number:02}").as_bytes(), &to)?))
        });
        let sender = bind_with(&reactor, LOCAL[0], &offloaded(), sending);
        let (peer, _) = peer_at(LOCAL[0]);
        peer.send_to(b"go", address_of(&sender)).expect("it is sent");
        run_until(&reactor, || log.has("received 03"));
        settle(&reactor);
        assert_eq!(log.count("received"), 4);
        receiver.resume_receiving();
        run_until(&reactor, || log.has("received 19"));
        assert_eq!(log.count("received"), 20);
    });
}
