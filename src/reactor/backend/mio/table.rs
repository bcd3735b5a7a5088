//! What is watched, by id, and who has something to be looked at.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};

use ::mio::event::Event;

use super::super::Completion;
use super::source::{Listener, Source, Stream, Then};
use crate::reactor::pages::Pages;
use crate::transport::agenda::Id;

/// What is watched, and who has something.
pub(super) struct Table {
    /// What each slot of the reactor's table means to the poller.
    entries: Pages<Entry>,
    /// Who has something, in this turn.
    ready: VecDeque<Id>,
    /// Who will have something in the next turn without being told so.
    again: Vec<Id>,
    /// Events for somebody who is gone.
    stale: u64,
}

struct Entry {
    generation: u32,
    /// In `ready` or `again`.
    listed: bool,
    source: Source,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { entries: Pages::new(), ready: VecDeque::new(), again: Vec::new(), stale: 0 }
    }

    /// Those who were left over from the last turn come first in this one.
    pub(super) fn begin_turn(&mut self) {
        self.ready.extend(self.again.drain(..));
    }

    /// Whether nobody is left over.
    pub(super) fn is_drained(&self) -> bool {
        self.again.is_empty()
    }

    /// Looks at whoever has something, one after the other, until there is a completion.
    pub(super) fn next(
        &mut self,
        mut look: impl FnMut(&mut Source) -> (Option<Completion>, Then),
    ) -> Option<(Id, Completion)> {
        while let Some(id) = self.ready.pop_front() {
            let Some(entry) = find(&mut self.entries, id) else { continue };
            let (completion, then) = look(&mut entry.source);
            entry.listed = then != Then::Rest;
            match then {
                Then::Rest => {}
                Then::Next => self.ready.push_front(id),
                Then::Again => self.again.push(id),
            }
            if let Some(completion) = completion {
                return Some((id, completion));
            }
        }
        None
    }

    /// The descriptor of a stream.
    pub(super) fn descriptor(&self, id: Id) -> Option<BorrowedFd<'_>> {
        self.connected(id).map(|stream| stream.socket.as_fd())
    }

    /// A connection, to look at.
    pub(super) fn connected(&self, id: Id) -> Option<&Stream> {
        let entry = self.entries.get(id.slot).filter(|entry| entry.generation == id.generation)?;
        match &entry.source {
            Source::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// How many events were for somebody who is gone.
    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    pub(super) fn insert(&mut self, id: Id, source: Source) {
        while self.entries.len() <= id.slot as usize {
            self.entries.push(Entry { generation: 0, listed: false, source: Source::Vacant });
        }
        if let Some(entry) = self.entries.get_mut(id.slot) {
            *entry = Entry { generation: id.generation, listed: false, source };
        }
    }

    fn source(&mut self, id: Id) -> Option<&mut Source> {
        find(&mut self.entries, id).map(|entry| &mut entry.source)
    }

    pub(super) fn stream(&mut self, id: Id) -> Option<&mut Stream> {
        match self.source(id) {
            Some(Source::Stream(stream)) => Some(stream),
            _ => None,
        }
    }

    pub(super) fn listener(&mut self, id: Id) -> Option<&mut Listener> {
        match self.source(id) {
            Some(Source::Listener(listener)) => Some(listener),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, id: Id) -> Source {
        self.source(id).map_or(Source::Vacant, |source| mem::replace(source, Source::Vacant))
    }

    /// Has `id` looked at in the next turn.
    pub(super) fn list_again(&mut self, id: Id) {
        if find(&mut self.entries, id).is_some_and(|entry| !mem::replace(&mut entry.listed, true)) {
            self.again.push(id);
        }
    }

    /// Takes note of what the poller said.
    pub(super) fn note(&mut self, id: Id, event: &Event) {
        let Some(entry) = self.entries.get_mut(id.slot).filter(|entry| entry.generation == id.generation) else {
            self.stale += 1;
            return;
        };
        match &mut entry.source {
            Source::Vacant => {
                self.stale += 1;
                return;
            }
            Source::Listener(listener) => listener.note(),
            Source::Connecting(stream) | Source::Stream(stream) => stream.note(event),
            Source::Watched => {}
        }
        if !mem::replace(&mut entry.listed, true) {
            self.ready.push_back(id);
        }
    }
}

/// The entry that `id` names, unless its place has another tenant.
fn find(entries: &mut Pages<Entry>, id: Id) -> Option<&mut Entry> {
    entries.get_mut(id.slot).filter(|entry| entry.generation == id.generation)
}
