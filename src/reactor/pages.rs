//! [`Pages`]: a growing table whose entries stay where they are. A `Vec` that doubles holds up to twice what is in use, and
//! copies it all when it grows; with tens of thousands of connections both can be felt.

/// Entries per page. 256: a page of the smallest entries is 6 KiB, and few entries are unused.
const PAGE: usize = 256;

/// A table in pages.
#[derive(Debug)]
pub(super) struct Pages<T>(Vec<Vec<T>>);

impl<T> Pages<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PAGE + last.len())
    }

    pub(super) fn push(&mut self, entry: T) {
        match self.0.last_mut() {
            Some(last) if last.len() < PAGE => last.push(entry),
            _ => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(entry);
                self.0.push(page);
            }
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        self.0.get(index / PAGE)?.get(index % PAGE)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        self.0.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_where_they_were_put() {
        let mut pages = Pages::new();
        for n in 0..1000_u32 {
            assert_eq!(pages.len(), n as usize);
            pages.push(n);
        }
        assert!(pages.iter().copied().eq(0..1000));
        assert!((0..1000).all(|n| pages.get(n) == Some(&n)));
        assert_eq!(pages.get(1000), None);
        *pages.get_mut(256).unwrap() = 7;
        assert_eq!(pages.get(256), Some(&7));
    }
}
