//! An HTTP request by reqwest, from the callback of a Deferred: the reactor runs inside tokio, so
//! libraries that need tokio work beside it.

use std::time::Duration;

use ropewalk::interfaces::*;
use ropewalk::task::defer_later;
use ropewalk::{Failure, ListenOptions, Reactor, Result, Transport};
use ropewalk_hosting::tokio_host::Hosted;
use tokio::task::LocalSet;

/// Answers the end of each request's head with a page.
struct Page(Vec<u8>);

impl Protocol for Page {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.0.extend_from_slice(data);
        if self.0.ends_with(b"\r\n\r\n") {
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\nhello from a page");
            transport.lose_connection();
        }
        Ok(())
    }
}

async fn get(url: String) -> Result<String> {
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let reactor = Reactor::builder().signals(false).build()?;
        let hosted = Hosted::begin(&reactor)?;
        let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Page(Vec::new())))?;
        let url = format!("http://{}/", port.host());
        let (fetching, stopping) = (reactor.clone(), reactor.clone());
        let fetched = defer_later(&reactor, Duration::from_millis(1), || Ok(()))
            .add_callback(move |()| fetching.spawn(get(url)))
            .add_both(move |page: Result<String>| {
                stopping.stop()?;
                page
            });
        hosted.await?;
        let page: Result<String, Failure> = fetched.await;
        println!("{}", page?);
        Ok(())
    })
}
