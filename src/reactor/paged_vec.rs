//! [`PagedVec`]: a growing table whose entries never move. A `Vec` that doubles holds up to twice
//! the used memory, and copies all entries when it grows. With tens of thousands of connections
//! both costs are noticeable.

/// Entries per page. With 256, a page of the smallest entries is 6 KiB, and few entries are unused.
const PAGE_ENTRIES: usize = 256;

/// A table in pages. Entries that were not pushed yet have the default value.
#[derive(Debug)]
pub(super) struct PagedVec<T> {
    pages: Vec<Box<[T; PAGE_ENTRIES]>>,
    len: usize,
}

impl<T: Default> PagedVec<T> {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, entry: T) {
        let index = self.len;
        if index == self.pages.len() * PAGE_ENTRIES {
            let page: Box<[T]> = std::iter::repeat_with(T::default).take(PAGE_ENTRIES).collect();
            self.pages.extend(page.try_into().ok());
        }
        if let Some(place) = self.pages.get_mut(index / PAGE_ENTRIES) {
            place[index % PAGE_ENTRIES] = entry;
            self.len += 1;
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        Some(&self.pages.get(index / PAGE_ENTRIES)?[index % PAGE_ENTRIES])
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        Some(&mut self.pages.get_mut(index / PAGE_ENTRIES)?[index % PAGE_ENTRIES])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter()).take(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_where_they_were_put() {
        let mut pages = PagedVec::new();
        for n in 0..1000_u32 {
            assert_eq!(pages.len(), n as usize);
            pages.push(n);
        }
        assert!(pages.iter().copied().eq(0..1000));
        assert!((0..1000).all(|n| pages.get(n) == Some(&n)));
        assert_eq!((pages.get(1000), pages.get(1024)), (Some(&0), None), "the rest of the last page");
        *pages.get_mut(256).unwrap() = 7;
        assert_eq!(pages.get(256), Some(&7));
    }
}
