//! One connection of the chat: the handshake, two directions at once, and the closing handshake.
//!
//! Everything that waits here ends by itself: the member's deadline aborts the connection, which
//! fails each read and each write.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, select};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use ropewalk::Result;
use ropewalk::streams::ByteStream;
use ropewalk::task::LoopingCall;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::member::{Member, Next};
use super::rooms::{Rooms, Seat};
use super::{Entry, Limits};

/// Number of bytes that tungstenite's buffers have from the beginning. Its own default of 128 KiB
/// would be the largest part of an idle connection.
const BUFFER_BYTES: usize = 4 << 10;

type Socket = WebSocketStream<ByteStream>;

/// The reason for which the reading direction ended.
enum End {
    /// The peer sent a close frame.
    ByPeer,
    /// The peer is to be told so.
    Code(CloseFrame),
    /// The connection is gone.
    Lost,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: ByteStream, member: Rc<Member>, rooms: Rc<Rooms>, entry: Entry) -> Result<()> {
    let room = Rc::new(RefCell::new(String::new()));
    let path = Rc::clone(&room);
    #[allow(clippy::result_large_err, reason = "tungstenite's callback has this type")]
    let enter = move |request: &Request, response: Response| -> std::result::Result<Response, ErrorResponse> {
        path.replace(request.uri().path().to_owned());
        Ok(response)
    };
    let accepted = accept_hdr_async_with_config(stream, enter, Some(config(entry.limits()))).await;
    let socket = match accepted {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%error, "a handshake failed");
            return Ok(());
        }
    };
    member.open();
    let _pings = Pings::start(&member, &socket, entry.limits());
    talk(socket, &member, &rooms, &room.take()).await;
    Ok(())
}

/// Reads and writes until one side ends the connection, and then does the closing handshake.
async fn talk(socket: Socket, member: &Rc<Member>, rooms: &Rc<Rooms>, room: &str) {
    let (mut sink, mut source) = socket.split();
    let end = {
        let reading = pin!(read(&mut source, member, rooms, room));
        let writing = pin!(write(&mut sink, member));
        match select(reading, writing).await {
            Either::Left((end, _)) | Either::Right((end, _)) => end,
        }
    };
    member.begin_closing();
    let Ok(mut socket) = source.reunite(sink) else { unreachable!("both are halves of one socket") };
    match end {
        End::Lost => return,
        End::ByPeer => {}
        End::Code(frame) => {
            if let Err(error) = socket.close(Some(frame)).await {
                tracing::debug!(%error, "no close frame could be sent");
                return;
            }
        }
    }
    // Sends the answer to the close frame of the peer, or waits for one to ours. If the peer broke
    // the protocol, nothing more can be read, and this is over at once. The transport sends the
    // close frame before it ends the connection.
    while let Some(Ok(_)) = socket.next().await {}
}

/// Reads messages. The first one is the name, and opens the seat. The end of the direction leaves
/// it.
async fn read(source: &mut SplitStream<Socket>, member: &Rc<Member>, rooms: &Rc<Rooms>, room: &str) -> End {
    let mut seat: Option<Seat> = None;
    while let Some(message) = source.next().await {
        member.hear();
        match message {
            Ok(Message::Text(text)) => match &seat {
                Some(seat) => seat.say(&text),
                None => {
                    seat = rooms.join(room, &text, member);
                    if seat.is_none() {
                        member.tell(Message::text("choose another name"));
                    }
                }
            },
            Ok(Message::Binary(_)) => return End::code(CloseCode::Unsupported, "only text is understood"),
            Ok(Message::Close(_)) => return End::ByPeer,
            // The socket answers pings itself.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(error) => return End::from(&error),
        }
    }
    End::Lost
}

/// Sends the queued messages, as many as there are at once, until the member's end.
async fn write(sink: &mut SplitSink<Socket, Message>, member: &Member) -> End {
    loop {
        let sent = match poll_fn(|cx| member.poll_next(cx)).await {
            Next::End(frame) => return End::Code(frame),
            Next::Message(message) if member.is_idle() => sink.send(message).await,
            Next::Message(message) => sink.feed(message).await,
        };
        if let Err(error) = sent {
            return End::from(&error);
        }
    }
}

impl End {
    fn code(code: CloseCode, reason: &'static str) -> Self {
        Self::Code(CloseFrame { code, reason: reason.into() })
    }
}

impl From<&Error> for End {
    fn from(error: &Error) -> Self {
        match error {
            Error::Utf8(_) => Self::code(CloseCode::Invalid, "text must be UTF-8"),
            Error::Capacity(_) => Self::code(CloseCode::Size, "the message is too long"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Lost,
            Error::Protocol(_) => Self::code(CloseCode::Protocol, "the protocol was broken"),
            _ => Self::Lost,
        }
    }
}

fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes))
}

/// Pings the peer of a session until it is dropped.
struct Pings(LoopingCall);

impl Pings {
    fn start(member: &Rc<Member>, socket: &Socket, limits: &Limits) -> Self {
        let pinged = Rc::clone(member);
        let pings = LoopingCall::new(&socket.get_ref().transport().timers(), move || pinged.ping());
        pings.start_later(limits.ping_interval).or_log("pinging");
        Self(pings)
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        // It runs until here, or until its reactor is gone.
        let _ = self.0.stop();
    }
}
