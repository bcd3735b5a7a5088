//! What a backend watches, by id, and who has something to be looked at.

use std::collections::VecDeque;
use std::mem;

use super::Completion;
use crate::reactor::pages::Pages;
use crate::transport::agenda::Id;

/// What is watched, and who has something.
pub(super) struct Table<S> {
    /// What each slot of the reactor's table means to the backend.
    entries: Pages<Entry<S>>,
    /// Who has something, in this turn.
    ready: VecDeque<Id>,
    /// Who will have something in the next turn without being told so.
    again: Vec<Id>,
    /// What was said of somebody who is gone.
    stale: u64,
}

struct Entry<S> {
    generation: u32,
    /// In `ready` or `again`.
    listed: bool,
    source: S,
}

/// When a source is to be looked at again without being told to by the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Rest,
    /// At once: it may have something else.
    Next,
    /// In the next turn: it had its share of this one.
    Again,
}

/// The default source is nobody.
impl<S: Default> Table<S> {
    pub(super) fn new() -> Self {
        Self { entries: Pages::new(), ready: VecDeque::new(), again: Vec::new(), stale: 0 }
    }

    /// Those who were left over from the last turn come first in this one.
    pub(super) fn begin_turn(&mut self) {
        self.ready.extend(self.again.drain(..));
    }

    /// Whether nobody is left over.
    pub(super) fn is_drained(&self) -> bool {
        self.again.is_empty() && self.ready.is_empty()
    }

    /// Looks at whoever has something, one after the other, until there is a completion.
    pub(super) fn next(
        &mut self,
        mut look: impl FnMut(Id, &mut S) -> (Option<Completion>, Then),
    ) -> Option<(Id, Completion)> {
        while let Some(id) = self.ready.pop_front() {
            let Some(entry) = find(&mut self.entries, id) else { continue };
            let (completion, then) = look(id, &mut entry.source);
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

    /// How much was said of somebody who is gone.
    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    /// Something was said of somebody who is gone.
    pub(super) fn count_stale(&mut self) {
        self.stale += 1;
    }

    pub(super) fn insert(&mut self, id: Id, source: S) {
        while self.entries.len() <= id.slot as usize {
            self.entries.push(Entry { generation: 0, listed: false, source: S::default() });
        }
        if let Some(entry) = self.entries.get_mut(id.slot) {
            *entry = Entry { generation: id.generation, listed: false, source };
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<&S> {
        let entry = self.entries.get(id.slot).filter(|entry| entry.generation == id.generation)?;
        Some(&entry.source)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut S> {
        find(&mut self.entries, id).map(|entry| &mut entry.source)
    }

    pub(super) fn take(&mut self, id: Id) -> S {
        self.get_mut(id).map(mem::take).unwrap_or_default()
    }

    /// Has `id` looked at in the next turn.
    pub(super) fn list_again(&mut self, id: Id) {
        if find(&mut self.entries, id).is_some_and(|entry| !mem::replace(&mut entry.listed, true)) {
            self.again.push(id);
        }
    }

    /// Has `id` looked at in this turn, after it took note of what the system said. `take_note` says whether there is anybody.
    pub(super) fn note(&mut self, id: Id, take_note: impl FnOnce(&mut S) -> bool) {
        let Some(entry) = find(&mut self.entries, id) else { return self.count_stale() };
        if !take_note(&mut entry.source) {
            return self.count_stale();
        }
        if !mem::replace(&mut entry.listed, true) {
            self.ready.push_back(id);
        }
    }
}

/// The entry that `id` names, unless its place has another tenant.
fn find<S>(entries: &mut Pages<Entry<S>>, id: Id) -> Option<&mut Entry<S>> {
    entries.get_mut(id.slot).filter(|entry| entry.generation == id.generation)
}
