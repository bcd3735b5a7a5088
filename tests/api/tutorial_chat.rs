//! Step 4 of the tutorial: the chat, tested without sockets and on virtual time.

#[path = "../../examples/tutorial_chat.rs"]
#[allow(dead_code, reason = "its main is for real sockets")]
mod chat;

use std::time::Duration;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::testing::{ChunkingCheck, MemoryReactor};
use ropewalk::{Connections, Result};

#[test]
fn a_line_goes_to_all_talkers() -> Result<()> {
    let (memory, room) = (MemoryReactor::new(), Connections::new());
    let endpoint = server_from_string(memory.reactor(), "tcp:6000:idleTimeout=60")?;
    endpoint.listen(chat::talkers(room.clone())).or_log("listening");
    let (first, second) = (memory.connect(6000)?, memory.connect(6000)?);

    first.write(b"hel")?;
    memory.settle()?;
    first.write(b"lo\n")?;
    memory.settle()?;
    assert_eq!(first.read(), b"1 in the room\nhello\n");
    assert_eq!(second.read(), b"2 in the room\nhello\n");

    memory.advance(Duration::from_secs(59))?;
    assert!(!first.is_ended() && !second.is_ended());
    memory.advance(Duration::from_secs(2))?;
    assert!(first.is_ended() && second.is_ended() && room.is_empty());
    Ok(())
}

#[test]
fn the_cuts_of_the_network_change_nothing() {
    ChunkingCheck::new(b"one\ntwo\n\nthree\n").run_factory(|| chat::talkers(Connections::new()));
}
