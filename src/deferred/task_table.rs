//! [`TaskTable`]: the tasks of a [`Spawner`](super::Spawner) by id.
//!
//! A task is found by its place, without a search. The place of a task that is done is used again.
//! The serial number of an id tells the tasks of one place apart, so that a late wake-up of the
//! former one finds nothing. A table keeps as many places as it had tasks at a time, until it is
//! empty.

/// Number of places that a table without tasks keeps: 24 KiB of them.
const KEPT_PLACES: usize = 1024;

/// Tasks by id, and ids that are reserved for tasks.
pub(super) struct TaskTable<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    /// Number of ids that were given out.
    reserved: u64,
}

/// Id of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskId {
    place: u32,
    serial: u64,
}

struct Place<T> {
    /// Serial number of the task that the place belongs to, or [`FREE`].
    serial: u64,
    /// `None` if the place is free, or only reserved.
    task: Option<T>,
}

/// Serial number of no task.
const FREE: u64 = 0;

impl<T> Default for TaskTable<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), reserved: FREE }
    }
}

impl<T> TaskTable<T> {
    /// Reserves an id, until it is [removed](Self::remove).
    pub(super) fn reserve(&mut self) -> TaskId {
        self.reserved += 1;
        let serial = self.reserved;
        if let Some(place) = self.free.pop() {
            self.places[place as usize].serial = serial;
            return TaskId { place, serial };
        }
        let place = self.places.len() as u32;
        self.places.push(Place { serial, task: None });
        TaskId { place, serial }
    }

    /// Adds the task of a reserved id.
    pub(super) fn set(&mut self, id: TaskId, task: T) {
        if let Some(place) = self.place_mut(id) {
            place.task = Some(task);
        }
    }

    /// Returns the task with this id, unless it was removed.
    pub(super) fn get(&self, id: TaskId) -> Option<&T> {
        let place = self.places.get(id.place as usize)?;
        if place.serial == id.serial { place.task.as_ref() } else { None }
    }

    /// Removes an id, and returns its task.
    pub(super) fn remove(&mut self, id: TaskId) -> Option<T> {
        let place = self.place_mut(id)?;
        place.serial = FREE;
        let task = place.task.take();
        self.free.push(id.place);
        if self.len() == 0 && self.places.len() > KEPT_PLACES {
            (self.places, self.free) = (Vec::new(), Vec::new());
        }
        task
    }

    /// Removes all ids, and returns their tasks in the order in which they were spawned.
    pub(super) fn remove_all(&mut self) -> Vec<T> {
        self.free = Vec::new();
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by_key(|place| place.serial);
        places.into_iter().filter_map(|place| place.task).collect()
    }

    /// Number of ids that are not removed.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn place_mut(&mut self, id: TaskId) -> Option<&mut Place<T>> {
        self.places.get_mut(id.place as usize).filter(|place| place.serial == id.serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(table: &mut TaskTable<u32>, task: u32) -> TaskId {
        let id = table.reserve();
        table.set(id, task);
        id
    }

    /// The id of a task that is done finds neither that task nor the next one of its place, and
    /// removes nothing.
    #[test]
    fn an_old_id_finds_nothing() {
        let mut table = TaskTable::default();
        let first = added(&mut table, 1);
        assert_eq!(table.get(first), Some(&1));
        assert_eq!(table.remove(first), Some(1));
        let second = added(&mut table, 2);
        assert_eq!(first.place, second.place);
        table.set(first, 3);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!((table.get(second), table.len()), (Some(&2), 1));
    }

    /// A reserved id has no task, and is removed as others are.
    #[test]
    fn an_id_may_stay_without_a_task() {
        let mut table = TaskTable::<u32>::default();
        let id = table.reserve();
        assert_eq!((table.get(id), table.len()), (None, 1));
        assert_eq!(table.remove(id), None);
        assert_eq!(table.len(), 0);
        assert_eq!(table.remove(id), None);
        assert_eq!((table.reserve().place, table.len()), (id.place, 1));
    }

    /// All tasks come out in the order in which they were spawned, wherever they had their places.
    /// Ids of before find nothing afterwards.
    #[test]
    fn all_come_out_in_order() {
        let mut table = TaskTable::default();
        let ids: Vec<TaskId> = (0..4).map(|task| added(&mut table, task)).collect();
        for id in [ids[2], ids[0]] {
            table.remove(id);
        }
        added(&mut table, 4);
        table.reserve();
        assert_eq!(table.remove_all(), [1, 3, 4]);
        let later = added(&mut table, 5);
        assert_eq!(later.place, ids[0].place);
        assert_eq!((table.get(ids[0]), table.get(later), table.len()), (None, Some(&5), 1));
    }

    /// After a crowd of tasks, the table keeps no memory for one.
    #[test]
    fn an_empty_table_is_small() {
        let mut table = TaskTable::default();
        let ids: Vec<TaskId> = (0..5000).map(|task| added(&mut table, task)).collect();
        for &id in &ids {
            assert!(table.remove(id).is_some());
        }
        assert!(table.places.capacity() <= KEPT_PLACES && table.free.capacity() <= KEPT_PLACES);
        assert_eq!(table.get(ids[0]), None);
        let later = added(&mut table, 1);
        assert_eq!((table.get(ids[0]), table.get(later)), (None, Some(&1)));
    }
}
