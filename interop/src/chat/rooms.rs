//! [`Rooms`]: the members of each room, by their names.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::member::Member;

/// Number of characters of a name.
const NAME_CHARACTERS: usize = 32;

/// All rooms that have members.
#[derive(Default)]
pub(super) struct Rooms(RefCell<BTreeMap<String, Room>>);

type Room = BTreeMap<String, Rc<Member>>;

impl Rooms {
    /// Takes a member into a room, and tells the others. `None` if the name is taken, or is none.
    pub(super) fn join(self: &Rc<Self>, room: &str, name: &str, member: &Rc<Member>) -> Option<Seat> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS || name.chars().any(char::is_control) {
            return None;
        }
        let mut rooms = self.0.borrow_mut();
        let members = rooms.entry(room.to_owned()).or_default();
        if members.contains_key(name) {
            return None;
        }
        members.insert(name.to_owned(), Rc::clone(member));
        drop(rooms);
        self.tell(room, format_args!("* {name} has joined"));
        Some(Seat { rooms: Rc::clone(self), room: room.to_owned(), name: name.to_owned() })
    }

    /// Names in a room, in order.
    pub(super) fn names(&self, room: &str) -> Vec<String> {
        self.0.borrow().get(room).map(|members| members.keys().cloned().collect()).unwrap_or_default()
    }

    /// Queues a text for all members of a room. They share its bytes.
    fn tell(&self, room: &str, text: fmt::Arguments<'_>) {
        // A list of its own: members that are woken may change the room.
        let members: Vec<_> =
            self.0.borrow().get(room).map(|room| room.values().cloned().collect()).unwrap_or_default();
        let text = Utf8Bytes::from(text.to_string());
        for member in members {
            member.tell(Message::Text(text.clone()));
        }
    }

    fn leave(&self, room: &str, name: &str) {
        let mut rooms = self.0.borrow_mut();
        let Some(members) = rooms.get_mut(room) else { return };
        let member = members.remove(name);
        if members.is_empty() {
            rooms.remove(room);
        }
        drop(rooms);
        drop(member);
        self.tell(room, format_args!("* {name} has left"));
    }
}

/// A member's place in a room. Dropped, it is left, and the others are told.
pub(super) struct Seat {
    rooms: Rc<Rooms>,
    room: String,
    name: String,
}

impl Seat {
    /// Passes a text on to all members of the room, its author included.
    pub(super) fn say(&self, text: &str) {
        self.rooms.tell(&self.room, format_args!("<{}> {text}", self.name));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rooms.leave(&self.room, &self.name);
    }
}
