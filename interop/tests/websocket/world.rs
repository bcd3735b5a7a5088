//! A chat on the simulated network, with clients by tungstenite, and with clients that write frames
//! byte by byte.

use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::{SinkExt, StreamExt};
use ropewalk::endpoints::{client_from_string, server_from_string};
use ropewalk::streams::{ByteStream, connect_stream};
use ropewalk::testing::{Conditions, Network};
use ropewalk::{Deferred, Reactor, Result};
use ropewalk_interop::chat::{Chat, Limits};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// More simulated time than any test takes.
const LONG: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) network: Network,
    _server: Reactor,
    pub(crate) client: Reactor,
    pub(crate) chat: Chat,
}

/// A member whose client is tungstenite.
pub(crate) type Client = WebSocketStream<ByteStream>;

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with(1, Conditions::ideal(), limits)
    }

    /// A network without losses, and one with all that it can do to a stream.
    pub(crate) fn rough(seed: u64) -> Self {
        let rough = Conditions::rough(seed).window(20_000).segment(1_460).chunk(4_096).bandwidth(None);
        Self::with(seed, if seed == 0 { Conditions::ideal() } else { rough }, Limits::default())
    }

    fn with(seed: u64, conditions: Conditions, limits: Limits) -> Self {
        let network = Network::with_conditions(seed, conditions);
        let server = network.reactor("10.0.0.1".parse().unwrap());
        let client = network.reactor("10.0.0.2".parse().unwrap());
        let chat = Chat::new(&server, limits);
        let listening = chat.listen(&server_from_string(&server, "tcp:80").unwrap());
        assert!(listening.is_called());
        Self { network, _server: server, client, chat }
    }

    /// Runs the network until a future is done.
    #[track_caller]
    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = Result<T>> + 'static) -> T {
        let mut done = self.client.spawn(future);
        self.run_until(|| done.is_called());
        done.take_result().unwrap().unwrap()
    }

    #[track_caller]
    pub(crate) fn run_until(&self, done: impl FnMut() -> bool) {
        self.network.run_until(LONG, done).unwrap();
    }

    pub(crate) fn connect(&self) -> Deferred<ByteStream> {
        connect_stream(&client_from_string(&self.client, "tcp:10.0.0.1:80").unwrap())
    }

    /// Enters a room under a name, and returns the client when it has been told so.
    #[track_caller]
    pub(crate) fn join(&self, room: &str, name: &str) -> Client {
        let (connecting, uri, name) = (self.connect(), format!("ws://a.server{room}"), name.to_owned());
        self.run(async move {
            let (mut client, _response) = client_async(uri, connecting.await?).await?;
            client.send(Message::text(name.clone())).await?;
            assert_eq!(next_text(&mut client).await, format!("* {name} has joined"));
            Ok(client)
        })
    }

    /// Connects, and does the handshake by hand. The client answers nothing by itself.
    #[track_caller]
    pub(crate) fn connect_by_hand(&self) -> ByteStream {
        let connecting = self.connect();
        self.run(async move {
            let mut stream = connecting.await?;
            stream.write_all(REQUEST).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await?;
                answer.extend(byte);
            }
            assert!(answer.starts_with(b"HTTP/1.1 101 "));
            Ok(stream)
        })
    }
}

/// The handshake of a client, whole.
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The next message, which is a text.
pub(crate) async fn next_text(client: &mut Client) -> String {
    loop {
        match client.next().await.expect("a message").expect("a message") {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads to the close frame, and returns its code. Closes the connection as a client does.
pub(crate) async fn close_code(mut client: Client) -> u16 {
    let mut code = None;
    while let Some(message) = client.next().await {
        if let Message::Close(frame) = message.expect("a message") {
            code = Some(frame.expect("it has a code").code.into());
        }
    }
    code.expect("a close frame")
}

/// A frame of a client. The mask is zero, which is one of its values.
pub(crate) fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first_byte];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("a short frame").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Reads frames of the server to the close frame, and returns its code. Answers nothing.
pub(crate) async fn read_code(stream: &mut ByteStream) -> Result<u16> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; usize::from(head[1])];
        assert!(payload.len() < 126, "servers do not mask, and these tests have short messages");
        stream.read_exact(&mut payload).await?;
        match head[0] {
            0x81 | 0x89 => {}
            0x88 => return Ok(u16::from_be_bytes([payload[0], payload[1]])),
            other => panic!("a frame of type {other:#x}"),
        }
    }
}
