//! [`ProxyHeaderReader`]: finds the header at the front of a stream.

use std::fmt;

use super::{ProxyHeader, ProxyHeaderError, binary, text};

/// The longest header that is read unless the program says otherwise. 16 KiB: the buffer of
/// HAProxy itself. nginx reads 4 KiB.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Reads the PROXY header at the front of a stream, of either version, in any cut. It is done with
/// the first header, or the first error.
///
/// ```
/// use ropewalk::haproxy::{ProxyHeaderError, ProxyHeaderReader};
///
/// let mut reader = ProxyHeaderReader::new();
/// assert_eq!(reader.read(b"PROXY UNK"), Ok((9, None)));
/// let (taken, header) = reader.read(b"NOWN\r\nhello").expect("a good header");
/// assert!(taken == 6 && header.is_some_and(|header| header.source().is_none()));
///
/// assert_eq!(ProxyHeaderReader::new().read(b"GET / HTTP/1.1"), Err(ProxyHeaderError::Missing));
/// ```
pub struct ProxyHeaderReader {
    max_length: usize,
    /// The bytes of an incomplete header.
    partial: Vec<u8>,
}

impl ProxyHeaderReader {
    /// Makes a reader of headers of 16 KiB at most.
    pub fn new() -> Self {
        Self { max_length: MAX_HEADER_BYTES, partial: Vec::new() }
    }

    /// Sets the longest header of version 2 that is read, in bytes. A line never has more than 107.
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Takes bytes of the header off the front of `data`. Returns the number of bytes taken, and
    /// the header once it is complete. Until then all bytes are taken.
    ///
    /// # Errors
    /// [`ProxyHeaderError`], as soon as the bytes can't become a good header.
    pub fn read(&mut self, data: &[u8]) -> Result<(usize, Option<ProxyHeader>), ProxyHeaderError> {
        if self.partial.is_empty() {
            // A header that arrives whole is not copied.
            return Ok(match length(data, self.max_length)? {
                Some(length) => (length, Some(parse(&data[..length])?)),
                None => {
                    self.partial.extend_from_slice(data);
                    (data.len(), None)
                }
            });
        }
        let before = self.partial.len();
        let most = self.max_length.max(text::MAX_LINE_BYTES);
        let added = data.len().min(most.saturating_sub(before));
        self.partial.extend_from_slice(&data[..added]);
        let Some(length) = length(&self.partial, self.max_length)? else { return Ok((added, None)) };
        let header = parse(&self.partial[..length])?;
        self.partial = Vec::new();
        Ok((length - before, Some(header)))
    }

    /// Returns the error of a stream that ends here: none if no byte of a header has arrived, as
    /// from a health check that only connects.
    pub fn cut(&self) -> Option<ProxyHeaderError> {
        (!self.partial.is_empty()).then_some(ProxyHeaderError::Cut)
    }
}

/// Returns the number of bytes of the header that `data` begins with. `None` if it is incomplete.
fn length(data: &[u8], limit: usize) -> Result<Option<usize>, ProxyHeaderError> {
    if begins(data, text::SIGNATURE) {
        return text::length(data);
    }
    if !begins(data, binary::SIGNATURE) {
        return Err(ProxyHeaderError::Missing);
    }
    Ok(binary::length(data, limit)?.filter(|length| *length <= data.len()))
}

/// Returns `true` if `data` begins with the signature, or is the beginning of it.
fn begins(data: &[u8], signature: &[u8]) -> bool {
    let common = data.len().min(signature.len());
    data[..common] == signature[..common]
}

/// Reads a complete header.
fn parse(header: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    if header.starts_with(binary::SIGNATURE) { binary::parse(header) } else { text::parse(header) }
}

impl Default for ProxyHeaderReader {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ProxyHeaderReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyHeaderReader")
            .field("max_length", &self.max_length)
            .field("partial_bytes", &self.partial.len())
            .finish()
    }
}
