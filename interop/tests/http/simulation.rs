//! A server and hyper's clients on a simulated network.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper::{Request, Response, StatusCode};
use ropewalk::endpoints::{client_from_string, server_from_string};
use ropewalk::streams::{ByteStream, LocalExecutor, connect_stream};
use ropewalk::testing::{Network, Peer};
use ropewalk::{Reactor, Result};
use ropewalk_interop::http::{HttpLimits, HttpServer};

use super::clients::pattern;

pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Number of bytes of a piece of an answer.
const PIECE: usize = 10_000;

/// A network with a server on port 80. `GET /N` is answered by N bytes in pieces, `POST /echo` by
/// the body of the request.
pub(crate) struct Simulated {
    pub(crate) network: Network,
    pub(crate) server: Reactor,
    pub(crate) client: Reactor,
    pub(crate) http: HttpServer,
    /// The lines about failures.
    pub(crate) failures: Rc<RefCell<Vec<String>>>,
}

impl Simulated {
    pub(crate) fn new(network: Network, limits: HttpLimits) -> Self {
        let (server, client) = (network.reactor(SERVER), network.reactor(CLIENT));
        let failures = Rc::new(RefCell::new(Vec::new()));
        let report = Rc::clone(&failures);
        let http = HttpServer::new(&server, limits, move |line| report.borrow_mut().push(line.to_string()));
        let endpoint = server_from_string(&server, "tcp:80").expect("a description");
        http.listen(&endpoint, answer).or_log("listening");
        Self { network, server, client, http, failures }
    }

    /// A raw connection.
    pub(crate) fn peer(&self) -> Peer {
        let peer = self.network.connect(SocketAddr::new(SERVER, 80));
        self.run_for(Duration::ZERO);
        peer
    }

    #[track_caller]
    pub(crate) fn run_for(&self, time: Duration) {
        self.network.run_for(time).expect("the network turns");
    }

    /// The failures that were reported, without the addresses of clients.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.borrow().iter().map(|line| line.split_once(": ").expect("an address").1.to_owned()).collect()
    }
}

/// The result of a request: `true` is the expected answer, whole.
pub(crate) type Asked = Result<bool>;

/// Makes requests for all sizes over one connection: a GET, and an echo of as many bytes. HTTP/1
/// makes one after the other, HTTP/2 all at once. `connected` is called with the stream.
pub(crate) async fn ask_all(
    client: Reactor,
    is_http2: bool,
    sizes: Vec<usize>,
    connected: impl FnOnce(&ByteStream),
) -> Result<Vec<Asked>> {
    let stream = connect_stream(&client_from_string(&client, "tcp:10.0.0.1:80")?).await?;
    connected(&stream);
    let executor = LocalExecutor::new(client.spawner());
    let requests = sizes.into_iter().flat_map(|size| [(size, false), (size, true)]);
    if is_http2 {
        let (sender, connection) = http2::handshake(executor.clone(), stream).await?;
        // An error of the connection is seen in its requests.
        executor.execute(connection);
        let asked = futures::future::join_all(requests.map(|(size, is_echo)| {
            let mut sender = sender.clone();
            async move {
                sender.ready().await?;
                check(sender.send_request(request(size, is_echo)).await?, size).await
            }
        }));
        return Ok(asked.await);
    }
    let (mut sender, connection) = http1::handshake(stream).await?;
    executor.execute(connection);
    let mut results = Vec::new();
    for (size, is_echo) in requests {
        let asked = async {
            sender.ready().await?;
            check(sender.send_request(request(size, is_echo)).await?, size).await
        };
        results.push(asked.await);
    }
    Ok(results)
}

fn request(size: usize, is_echo: bool) -> Request<Pieces> {
    let builder = Request::builder().header("host", "a.server");
    let request = match is_echo {
        true => builder.method("POST").uri("http://a.server/echo").body(pieces(size)),
        false => builder.uri(format!("http://a.server/{size}")).body(pieces(0)),
    };
    request.expect("a request")
}

async fn check(answer: Response<Incoming>, size: usize) -> Asked {
    assert_eq!(answer.status(), StatusCode::OK);
    Ok(answer.into_body().collect().await?.to_bytes() == pattern(size))
}

async fn answer<B>(request: Request<B>) -> Response<Either<Pieces, B>>
where
    B: Body<Data = Bytes>,
{
    if request.uri().path() == "/echo" {
        return Response::new(Either::Right(request.into_body()));
    }
    let size = request.uri().path().trim_start_matches('/').parse();
    Response::new(Either::Left(pieces(size.expect("a number"))))
}

/// A body without an announced length.
type Pieces = Either<Full<Bytes>, StreamBody<stream::Iter<std::vec::IntoIter<Piece>>>>;
type Piece = std::result::Result<Frame<Bytes>, std::convert::Infallible>;

fn pieces(size: usize) -> Pieces {
    if size == 0 {
        return Either::Left(Full::default());
    }
    let whole = Bytes::from(pattern(size));
    let piece = |start| Ok(Frame::data(whole.slice(start..size.min(start + PIECE))));
    let pieces: Vec<Piece> = (0..size).step_by(PIECE).map(piece).collect();
    Either::Right(StreamBody::new(stream::iter(pieces)))
}
