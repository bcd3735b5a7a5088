//! Streams on simulated networks that cut, delay and reset.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::common::seeds;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use ropewalk::endpoints::{client_from_string, server_from_string};
use ropewalk::streams::{connect_stream, listen_streams};
use ropewalk::testing::{Conditions, Network};
use ropewalk::{Reactor, Result};

use super::*;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Rough networks, with the number of bytes that they carry in a reasonable time: a few where
/// windows or pieces may be a byte, and more than the buffers of a stream where they are not.
fn networks() -> impl Iterator<Item = (Network, usize)> {
    let small =
        (0..seeds(5, 48)).map(u64::from).map(|seed| (Network::with_conditions(seed, Conditions::rough(seed)), 2_000));
    let large = (0..seeds(2, 24)).map(u64::from).map(|seed| {
        let conditions = Conditions::rough(seed).window(20_000).segment(1_460).chunk(4_096).bandwidth(None);
        (Network::with_conditions(seed, conditions), 200_000)
    });
    small.chain(large)
}

/// Copies what comes in until the end of file, and closes.
async fn echo(stream: ByteStream) -> Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut buffer = vec![0; 5000];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(writer.close().await?);
        }
        writer.write_all(&buffer[..count]).await?;
    }
}

fn serve_echoes(network: &Network) -> Reactor {
    let server = network.reactor(SERVER);
    let spawner = server.spawner().clone();
    let endpoint = server_from_string(&server, "tcp:7").unwrap();
    listen_streams(&endpoint, move |stream| drop(spawner.spawn(echo(stream)).add_both(|_| ()))).or_log("listening");
    server
}

/// Writes while it reads, because both directions fill up, and compares.
async fn ask(stream: ByteStream, data: Vec<u8>) -> Result<bool> {
    let (mut reader, mut writer) = stream.split();
    let writing = async {
        writer.write_all(&data).await?;
        writer.close().await
    };
    let (written, answer) = futures::future::join(writing, read_all(&mut reader)).await;
    written?;
    Ok(answer? == data)
}

/// Bytes go and come whole on every network, with several connections at once, and each ends.
#[test]
fn every_byte_comes_back() {
    for (network, most) in networks() {
        let _server = serve_echoes(&network);
        let client = network.reactor(CLIENT);
        let done = Rc::new(RefCell::new(Vec::new()));
        for size in [0, 1, most / 10, most / 2, most] {
            let connecting = connect_stream(&client_from_string(&client, "tcp:10.0.0.1:7").unwrap());
            let asked = client.spawn(async move { ask(connecting.await?, pattern(size)).await });
            let done = Rc::clone(&done);
            drop(asked.add_both(move |result| done.borrow_mut().push(result.map_err(|failure| failure.to_string()))));
        }
        network.run_until(Duration::from_secs(24 * 3600), || done.borrow().len() == 5).unwrap();
        assert_eq!(*done.borrow(), [const { Ok::<_, String>(true) }; 5], "seed {}", network.seed());
    }
}

/// A peer that resets in the middle of both directions ends both futures, with its kind, and leaves
/// no socket behind.
#[test]
fn a_reset_ends_both_directions() {
    for (network, _) in networks() {
        let server = network.reactor(SERVER);
        let kinds = Rc::new(RefCell::new(Vec::new()));
        let (spawner, seen) = (server.spawner().clone(), Rc::clone(&kinds));
        let endpoint = server_from_string(&server, "tcp:7").unwrap();
        let listening = listen_streams(&endpoint, move |stream| {
            let seen = Rc::clone(&seen);
            let served = spawner.spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let reading = async {
                    let mut buffer = vec![0; 5000];
                    loop {
                        if let Err(error) = reader.read_exact(&mut buffer).await {
                            return error.kind();
                        }
                    }
                };
                let writing = async {
                    loop {
                        if let Err(error) = writer.write_all(&[7; 5000]).await {
                            return error.kind();
                        }
                    }
                };
                let both: (ErrorKind, ErrorKind) = futures::future::join(reading, writing).await;
                seen.borrow_mut().push(both);
            });
            served.or_log("serving");
        });
        listening.or_log("listening");
        let peer = network.connect(SocketAddr::new(SERVER, 7));
        network.run_for(Duration::from_secs(5)).unwrap();
        let _ = peer.write(&pattern(20_000));
        network.run_for(Duration::from_secs(5)).unwrap();
        peer.abort();
        network.run_until(Duration::from_secs(3600), || !kinds.borrow().is_empty()).unwrap();
        let reset = ErrorKind::ConnectionReset;
        assert_eq!(*kinds.borrow(), [(reset, reset)], "seed {}", network.seed());
        network.run_for(Duration::from_secs(120)).unwrap();
        assert_eq!(network.open_sockets(&server), 1, "the port alone, seed {}", network.seed());
    }
}

/// A stream that is dropped with everything still to be sent loses no byte of it.
#[test]
fn a_dropped_stream_loses_nothing() {
    for (network, count) in networks() {
        let server = network.reactor(SERVER);
        let spawner = server.spawner().clone();
        let endpoint = server_from_string(&server, "tcp:7").unwrap();
        let listening = listen_streams(&endpoint, move |mut stream| {
            let served = spawner.spawn(async move { Ok(stream.write_all(&pattern(count)).await?) });
            served.or_log("serving");
        });
        listening.or_log("listening");
        let client = network.reactor(CLIENT);
        let connecting = connect_stream(&client_from_string(&client, "tcp:10.0.0.1:7").unwrap());
        let mut read = client.spawn(async move {
            let mut stream = connecting.await?;
            Result::Ok(read_all(&mut stream).await?)
        });
        network.run_until(Duration::from_secs(3600), || read.is_called()).unwrap();
        assert!(read.take_result().unwrap().unwrap() == pattern(count), "seed {}", network.seed());
    }
}
