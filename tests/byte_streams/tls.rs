//! Streams over TLS: the layer is below, and the stream does not know of it.

use std::io::ErrorKind;
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use ropewalk::Result;
use ropewalk::endpoints::{client_from_string, server_from_string, wrap_client_tls, wrap_server_tls};
use ropewalk::streams::{accept_streams, connect_stream};
use ropewalk::testing::{Conditions, Network};

use super::common::certificates::Authority;
use super::*;

fn networks() -> impl Iterator<Item = Network> {
    (0..8).map(|seed| {
        let rough = Conditions::rough(seed).window(20_000).segment(1_460).chunk(4_096).bandwidth(None);
        let conditions = if seed == 0 { Conditions::ideal() } else { rough };
        Network::with_conditions(seed, conditions)
    })
}

/// Bytes go whole in both directions, behind the handshake, and a close ends TLS before the
/// connection.
#[test]
fn bytes_go_over_tls() {
    for network in networks() {
        let authority = Authority::repeatable();
        let (server, client) =
            (network.reactor("10.0.0.1".parse().unwrap()), network.reactor("10.0.0.2".parse().unwrap()));
        let inner = server_from_string(&server, "tcp:443").unwrap();
        let listening = accept_streams(&wrap_server_tls(authority.server(&["a.server"]), inner), 4);
        let mut served = server.spawn(async move {
            let mut stream = listening.await?.accept().await.expect("a connection");
            stream.handshake().await?;
            assert!(stream.transport().tls_session().is_some());
            let question = read_all(&mut stream).await?;
            stream.write_all(&question).await?;
            stream.close().await?;
            Result::Ok(question.len())
        });
        let inner = client_from_string(&client, "tcp:10.0.0.1:443").unwrap();
        let connecting = connect_stream(&wrap_client_tls(authority.client("a.server"), inner));
        let mut asked = client.spawn(async move {
            let mut stream = connecting.await?;
            // Written before the handshake, and sent behind it.
            stream.write_all(&pattern(150_000)).await?;
            stream.close().await?;
            Result::Ok(read_all(&mut stream).await?)
        });
        network.run_until(Duration::from_secs(3600), || asked.is_called() && served.is_called()).unwrap();
        assert_eq!(served.take_result().unwrap().unwrap(), 150_000);
        assert!(asked.take_result().unwrap().unwrap() == pattern(150_000), "seed {}", network.seed());
    }
}

/// A handshake that fails is an `InvalidData` of everything that waits, and of later calls.
#[test]
fn a_handshake_that_fails_is_an_error_of_the_stream() {
    let network = Network::new(1);
    let authority = Authority::repeatable();
    let (server, client) = (network.reactor("10.0.0.1".parse().unwrap()), network.reactor("10.0.0.2".parse().unwrap()));
    let inner = server_from_string(&server, "tcp:443").unwrap();
    let listening = accept_streams(&wrap_server_tls(authority.server(&["a.server"]), inner), 4);
    let inner = client_from_string(&client, "tcp:10.0.0.1:443").unwrap();
    let connecting = connect_stream(&wrap_client_tls(authority.client("another.server"), inner));
    let mut asked = client.spawn(async move {
        let mut stream = connecting.await?;
        let first = stream.handshake().await.expect_err("another name").kind();
        let second = stream.read(&mut [0; 10]).await.expect_err("no session").kind();
        Result::Ok((first, second))
    });
    let (ran, _lines) = common::logged(|| network.run_until(Duration::from_secs(3600), || asked.is_called()));
    ran.unwrap();
    assert_eq!(asked.take_result().unwrap().unwrap(), (ErrorKind::InvalidData, ErrorKind::InvalidData));
    drop(listening);
}
