//! Requests that choose the size of their answer and the number of writes.
//!
//! A request has [`REQUEST_BYTES`]: a letter that selects the writes, and the size of the answer as
//! decimal digits. The bytes of an answer are those of [`content`], so every answer can be
//! compared.

use crate::Result;

/// Size of a request.
pub const REQUEST_BYTES: usize = 10;

/// Size of the largest answer.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Size of the last write when an answer takes two writes.
const TAIL_BYTES: usize = 4;

/// Size of each write when an answer takes many. The last write may be shorter.
const PIECE_BYTES: usize = 1 << 10;

/// Division of an answer into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// The whole answer at once.
    One,
    /// All bytes but the last four, then those four.
    Two,
    /// Pieces of 1 KiB.
    Many,
}

/// A request for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Division of the answer into writes.
    pub writes: Writes,
    /// Size of the answer in bytes.
    pub bytes: usize,
}

impl Request {
    /// Returns the bytes to send.
    pub fn encode(self) -> [u8; REQUEST_BYTES] {
        let letter = match self.writes {
            Writes::One => b'1',
            Writes::Two => b'2',
            Writes::Many => b'm',
        };
        let (mut encoded, mut rest) = ([letter; REQUEST_BYTES], self.bytes);
        for digit in encoded[1..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        encoded
    }

    /// Decodes a request.
    ///
    /// # Errors
    /// Fails if the letter is unknown, if a digit is not a decimal digit, or if the answer would be
    /// empty or above [`MAX_ANSWER_BYTES`].
    pub fn decode(encoded: &[u8; REQUEST_BYTES]) -> Result<Self> {
        let [letter, digits @ ..] = encoded;
        let writes = match letter {
            b'1' => Writes::One,
            b'2' => Writes::Two,
            b'm' => Writes::Many,
            _ => return Err("a request begins with 1, 2 or m".into()),
        };
        let bytes = std::str::from_utf8(digits)?.parse()?;
        if !(1..=MAX_ANSWER_BYTES).contains(&bytes) {
            return Err(format!("an answer has 1 to {MAX_ANSWER_BYTES} bytes, not {bytes}").into());
        }
        Ok(Self { writes, bytes })
    }

    /// Returns the writes of the answer, none of them empty. `content` is the result of
    /// [`content`].
    pub fn pieces(self, content: &[u8]) -> impl Iterator<Item = &[u8]> {
        let (tail, most) = match self.writes {
            Writes::One => (0, MAX_ANSWER_BYTES),
            Writes::Two => (TAIL_BYTES, MAX_ANSWER_BYTES),
            Writes::Many => (0, PIECE_BYTES),
        };
        let (head, tail) = content[..self.bytes].split_at(self.bytes.saturating_sub(tail));
        head.chunks(most).chain(tail.chunks(most))
    }
}

/// Decoder of requests from a byte stream in chunks of any size.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    partial: [u8; REQUEST_BYTES],
    length: usize,
}

impl RequestDecoder {
    /// Takes the next request from the front of `data`. Returns `None` if the request is
    /// incomplete.
    ///
    /// # Errors
    /// Fails as [`Request::decode`] does.
    pub fn next(&mut self, data: &mut &[u8]) -> Result<Option<Request>> {
        let count = data.len().min(REQUEST_BYTES - self.length);
        let (taken, rest) = data.split_at(count);
        self.partial[self.length..self.length + count].copy_from_slice(taken);
        (self.length, *data) = (self.length + count, rest);
        if self.length < REQUEST_BYTES {
            return Ok(None);
        }
        self.length = 0;
        Request::decode(&self.partial).map(Some)
    }
}

/// Returns the bytes of the largest answer. A smaller answer is a prefix of them. The period of 251
/// bytes divides no buffer size.
pub fn content() -> Vec<u8> {
    (0..MAX_ANSWER_BYTES).map(|at| (at % 251) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(writes: Writes, bytes: usize) -> Vec<usize> {
        Request { writes, bytes }.pieces(&content()).map(<[u8]>::len).collect()
    }

    /// The request decides how an answer is divided, and no write is empty.
    #[test]
    fn answers_are_cut_as_asked() {
        assert_eq!(sizes(Writes::One, 9_004), [9_004]);
        assert_eq!(sizes(Writes::Two, 9_004), [9_000, 4]);
        assert_eq!(sizes(Writes::Two, 3), [3]);
        assert_eq!(sizes(Writes::Many, 2_050), [1_024, 1_024, 2]);
        assert_eq!(sizes(Writes::Many, 1_024), [1_024]);
    }

    /// Requests are decoded in chunks of any size, and an invalid request is an error.
    #[test]
    fn requests_are_read_from_any_cut() {
        let asked = [Writes::One, Writes::Two, Writes::Many].map(|writes| Request { writes, bytes: 70_000 });
        let stream: Vec<u8> = asked.iter().flat_map(|request| request.encode()).collect();
        assert_eq!(&stream[10..20], b"2000070000");
        for cut in 1..=stream.len() {
            let (mut requests, mut read) = (RequestDecoder::default(), Vec::new());
            for mut data in stream.chunks(cut) {
                while let Some(request) = requests.next(&mut data).unwrap() {
                    read.push(request);
                }
                assert!(data.is_empty());
            }
            assert_eq!(read, asked, "cut into {cut}");
        }
        for wrong in [b"x000000001", b"1000000000", b"1001048577", b"100000+1 0"] {
            assert!(Request::decode(wrong).is_err(), "{wrong:?}");
        }
    }
}
