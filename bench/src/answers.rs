//! Requests that say how they are to be answered: with how many bytes, in how many writes.
//!
//! A request has [`REQUEST_BYTES`]: a letter for the writes, and the size of the answer as decimal digits. The bytes of an answer are
//! those of [`content`], so that every answer can be compared.

use crate::Result;

/// The size of a request.
pub const REQUEST_BYTES: usize = 10;

/// The largest answer.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The last write of an answer in two.
const TAIL_BYTES: usize = 4;

/// Every write of an answer in many, but for the last.
const PIECE_BYTES: usize = 1 << 10;

/// How an answer is cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// The whole answer at once.
    One,
    /// All but the last four bytes, and those.
    Two,
    /// Pieces of 1 KiB.
    Many,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How the answer is cut.
    pub writes: Writes,
    /// How many bytes it has.
    pub bytes: usize,
}

impl Request {
    /// The request as it is sent.
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

    /// Reads a request.
    ///
    /// # Errors
    /// The letter is unknown, a digit is none, or the answer would be empty or above [`MAX_ANSWER_BYTES`].
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

    /// The writes of the answer, none of them empty. `content` is that of [`content`].
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

/// Requests out of a stream of bytes that is cut anywhere.
#[derive(Debug, Default)]
pub struct Requests {
    partial: [u8; REQUEST_BYTES],
    length: usize,
}

impl Requests {
    /// Takes the next request from the front of `data`. Returns `None` if the rest of it is still to come.
    ///
    /// # Errors
    /// As [`Request::decode`].
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

/// The bytes of the largest answer; a smaller one has the first of them. The period of 251 is no divisor of any buffer's size.
pub fn content() -> Vec<u8> {
    (0..MAX_ANSWER_BYTES).map(|at| (at % 251) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(writes: Writes, bytes: usize) -> Vec<usize> {
        Request { writes, bytes }.pieces(&content()).map(<[u8]>::len).collect()
    }

    /// An answer is cut as its request says, and no write is empty.
    #[test]
    fn answers_are_cut_as_asked() {
        assert_eq!(sizes(Writes::One, 9_004), [9_004]);
        assert_eq!(sizes(Writes::Two, 9_004), [9_000, 4]);
        assert_eq!(sizes(Writes::Two, 3), [3]);
        assert_eq!(sizes(Writes::Many, 2_050), [1_024, 1_024, 2]);
        assert_eq!(sizes(Writes::Many, 1_024), [1_024]);
    }

    /// Requests are read however the stream is cut, and one that means nothing is an error.
    #[test]
    fn requests_are_read_from_any_cut() {
        let asked = [Writes::One, Writes::Two, Writes::Many].map(|writes| Request { writes, bytes: 70_000 });
        let stream: Vec<u8> = asked.iter().flat_map(|request| request.encode()).collect();
        assert_eq!(&stream[10..20], b"2000070000");
        for cut in 1..=stream.len() {
            let (mut requests, mut read) = (Requests::default(), Vec::new());
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
