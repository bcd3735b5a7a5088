//! [`SlotMap`]: the reactor's table of watched items. An [`Id`] is a slot and a generation. A freed
//! slot gets the next generation, so that an old id never names a new item.

use super::paged_vec::PagedVec;
use crate::transport::id::Id;

/// A table of values that are found by [`Id`].
#[derive(Debug)]
pub(super) struct SlotMap<T> {
    places: PagedVec<Slot<T>>,
    free: Vec<u32>,
    taken: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A slot that no id names.
impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { generation: 0, value: None }
    }
}

impl<T> Default for SlotMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SlotMap<T> {
    pub(super) fn new() -> Self {
        Self { places: PagedVec::new(), free: Vec::new(), taken: 0 }
    }

    /// Inserts a value, and returns its id.
    pub(super) fn insert(&mut self, value: T) -> Id {
        self.taken += 1;
        if let Some(slot) = self.free.pop()
            && let Some(place) = self.places.get_mut(slot)
        {
            place.value = Some(value);
            return Id { slot, generation: place.generation };
        }
        let id = Id { slot: self.places.len() as u32, generation: 1 };
        self.places.push(Slot { generation: id.generation, value: Some(value) });
        id
    }

    #[inline(always)]
    pub(super) fn get(&self, id: Id) -> Option<&T> {
        let place = self.places.get(id.slot)?;
        if place.generation == id.generation { place.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let place = self.places.get_mut(id.slot)?;
        if place.generation == id.generation { place.value.as_mut() } else { None }
    }

    /// Removes a value, and frees its slot.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let place = self.places.get_mut(id.slot)?;
        if place.generation != id.generation {
            return None;
        }
        let value = place.value.take()?;
        // The generation u32::MAX belongs to the tokens of the backend's own descriptors.
        place.generation = if place.generation >= u32::MAX - 1 { 1 } else { place.generation + 1 };
        self.free.push(id.slot);
        self.taken -= 1;
        Some(value)
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// Returns the ids of all values that match.
    pub(super) fn ids(&self, mut matches: impl FnMut(&T) -> bool) -> Vec<Id> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, place)| place.value.as_ref().is_some_and(&mut matches))
            .map(|(slot, place)| Id { slot: slot as u32, generation: place.generation })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_names_a_new_tenant() {
        let mut slots = SlotMap::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(first.slot, second.slot);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn generations_wrap_around_without_meeting_the_waker() {
        let mut slots = SlotMap::new();
        let id = slots.insert(());
        slots.remove(id);
        slots.places.get_mut(0).unwrap().generation = u32::MAX - 1;
        let last = slots.insert(());
        slots.remove(last);
        assert_eq!(slots.insert(()).generation, 1);
    }
}
