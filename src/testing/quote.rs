//! Quotes bytes in failure messages.

/// Bytes shown of one piece. With its escapes the excerpt still fits on a line or two.
const SHOWN: usize = 60;

/// Quotes and escapes the first bytes. Adds the total if not all are shown.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN) {
        Some(first) if bytes.len() > SHOWN => format!("\"{}\"... ({} bytes)", first.escape_ascii(), bytes.len()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Quotes the bytes on both sides of a place, with a bar between them.
pub(super) fn around(bytes: &[u8], place: usize) -> String {
    let place = place.min(bytes.len());
    let (first, last) = (place.saturating_sub(SHOWN / 2), (place + SHOWN / 2).min(bytes.len()));
    let before = if first > 0 { "..." } else { "" };
    let behind = if last < bytes.len() { "..." } else { "" };
    format!("{before}\"{}|{}\"{behind}", bytes[first..place].escape_ascii(), bytes[place..last].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_shown_whole_and_much_is_cut() {
        assert_eq!(excerpt(b"a\r\n\xff"), r#""a\r\n\xff""#);
        assert_eq!(excerpt(&[b'x'; 70]), format!("\"{}\"... (70 bytes)", "x".repeat(60)));
        assert_eq!(around(b"hello", 2), "\"he|llo\"");
        assert_eq!(around(&[b'x'; 100], 50), format!("...\"{0}|{0}\"...", "x".repeat(30)));
    }
}
