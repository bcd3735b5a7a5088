//! A client of tokio and a server of callbacks, in one thread: the reactor runs inside tokio's
//! current-thread runtime.

use std::time::Duration;

use ropewalk::interfaces::*;
use ropewalk::{ListenOptions, Reactor, Result, Transport};
use ropewalk_hosting::tokio_host::Hosted;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Sends everything back.
struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

async fn talk(reactor: Reactor) -> Result<()> {
    let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
    let address = port.host().socket_addr().expect("a TCP port has one");
    let mut stream = TcpStream::connect(address).await?;
    for number in 1..=3 {
        stream.write_all(format!("message {number}").as_bytes()).await?;
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).await?;
        println!("{}", String::from_utf8_lossy(&answer));
    }
    // The reactor's timers, Deferreds and futures work in tokio's tasks, and tokio's in the
    // reactor's.
    ropewalk::task::defer_later(&reactor, Duration::from_millis(5), || Ok(())).await?;
    let sleep = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, ropewalk::Failure>(())
    };
    reactor.spawn(sleep).await?;
    Ok(reactor.stop()?)
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let reactor = Reactor::builder().signals(false).build()?;
        let hosted = Hosted::begin(&reactor)?;
        let client = tokio::task::spawn_local(talk(reactor.clone()));
        hosted.await?;
        let turns = reactor.counters().turns;
        println!("the reactor has stopped, after {turns} turns");
        client.await?
    })
}
