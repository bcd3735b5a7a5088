//! [`Sockets`]: the sockets of a kernel, by their ids.
//!
//! Ids count up and most sockets are short-lived, so the table is a queue of places, from the
//! oldest open socket to the newest. A look-up is one step in it. Most of a simulation's look-ups
//! are here, and tests are built without optimisation.

use std::collections::VecDeque;

use super::{SimulatedSocket, SocketId};

/// Sockets in the order of their ids.
#[derive(Default)]
pub(super) struct Sockets {
    /// The id of the first place.
    first: SocketId,
    /// Boxed, so that an old socket among many short-lived ones costs a word for each of them.
    places: VecDeque<Option<Box<SimulatedSocket>>>,
}

impl Sockets {
    pub(super) fn get(&self, id: SocketId) -> Option<&SimulatedSocket> {
        match self.places.get(self.place(id)?) {
            Some(Some(socket)) => Some(socket),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut SimulatedSocket> {
        let place = self.place(id)?;
        match self.places.get_mut(place) {
            Some(Some(socket)) => Some(socket),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, id: SocketId, socket: SimulatedSocket) {
        if self.places.is_empty() {
            self.first = id;
        }
        // Two sockets of a connection may come in either order.
        while id < self.first {
            self.places.push_front(None);
            self.first -= 1;
        }
        let place = (id - self.first) as usize;
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(Box::new(socket));
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<SimulatedSocket> {
        let place = self.place(id)?;
        let removed = self.places.get_mut(place)?.take()?;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        Some(*removed)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketId, &SimulatedSocket)> {
        (self.first..).zip(&self.places).filter_map(|(id, place)| Some((id, place.as_deref()?)))
    }

    pub(super) fn any(&self, is: impl Fn(&SimulatedSocket) -> bool) -> bool {
        self.count_up_to(1, is) > 0
    }

    pub(super) fn count(&self, is: impl Fn(&SimulatedSocket) -> bool) -> usize {
        self.count_up_to(usize::MAX, is)
    }

    /// A plain loop over slices: a chain of iterators takes several times as long without
    /// optimisation, and each turn of a simulation counts.
    fn count_up_to(&self, most: usize, is: impl Fn(&SimulatedSocket) -> bool) -> usize {
        let (older, newer) = self.places.as_slices();
        let mut count = 0;
        for places in [older, newer] {
            for place in places {
                if let Some(socket) = place
                    && is(socket)
                {
                    count += 1;
                    if count == most {
                        return count;
                    }
                }
            }
        }
        count
    }

    /// Returns the index of the place of an id, unless the id is older than all places.
    fn place(&self, id: SocketId) -> Option<usize> {
        if id < self.first { None } else { Some((id - self.first) as usize) }
    }
}
