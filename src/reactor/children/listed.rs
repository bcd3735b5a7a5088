//! The entries of a directory, as `getdents64` writes them: numbers of open descriptors.
//!
//! This runs in a child before its exec. It allocates nothing, and panics on no input.

use std::os::fd::RawFd;

/// Bytes of an entry before its name: an inode, an offset, the entry's length and a type.
const NAME_AT: usize = 19;

/// The place of the entry's length, two bytes.
const LENGTH_AT: usize = 16;

/// Returns the numbers that are names of entries. Other names, such as `.`, are left out.
pub(super) fn numbers(mut entries: &[u8]) -> impl Iterator<Item = RawFd> {
    std::iter::from_fn(move || {
        loop {
            let (name, rest) = next_name(entries)?;
            entries = rest;
            if let Some(number) = number(name) {
                return Some(number);
            }
        }
    })
}

/// Returns the first entry's name, with the zeros that fill it up, and the other entries.
fn next_name(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = entries.get(LENGTH_AT..LENGTH_AT + 2)?;
    let length = usize::from(u16::from_ne_bytes([*length.first()?, *length.get(1)?]));
    // An entry is longer than its fields, so that this ends.
    Some((entries.get(NAME_AT..length)?, entries.get(length..)?))
}

fn number(name: &[u8]) -> Option<RawFd> {
    let mut number: Option<RawFd> = None;
    for &byte in name.iter().take_while(|&&byte| byte != 0) {
        let digit = if byte.is_ascii_digit() { RawFd::from(byte - b'0') } else { return None };
        number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as the kernel writes it, filled up to a multiple of eight bytes.
    fn entry(name: &str) -> Vec<u8> {
        let length = (NAME_AT + name.len() + 1).next_multiple_of(8);
        let mut bytes = vec![0; length];
        bytes[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        bytes[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    #[test]
    fn names_that_are_numbers_are_listed() {
        let entries = [".", "..", "0", "17", "2147483647", "x1", "1x", "99999999999"].map(entry).concat();
        assert_eq!(numbers(&entries).collect::<Vec<_>>(), [0, 17, i32::MAX]);
        assert_eq!(numbers(&[]).count(), 0);
    }

    /// No input panics or runs for ever: cut entries, and lengths that cannot be.
    #[test]
    fn a_damaged_list_ends() {
        let entries = ["3", "4"].map(entry).concat();
        for cut in 0..entries.len() {
            assert!(numbers(&entries[..cut]).count() <= 1);
        }
        for length in [0_u16, 1, 18, 19, u16::MAX] {
            let mut bytes = entry("5");
            bytes[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&length.to_ne_bytes());
            assert!(numbers(&bytes).count() <= 1, "{length}");
        }
    }
}
