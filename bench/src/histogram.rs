//! Histogram of latencies, counted in buckets.
//!
//! Each power of two has 32 buckets. A value is therefore known to 3 %, from one nanosecond to
//! centuries, in a fixed amount of memory.

use std::fmt::Write;

/// Number of buckets for each power of two, as a number of bits.
const BITS: u32 = 5;

/// Counts of values, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts a value once.
    pub fn record(&mut self, value: u64) {
        self.add(bucket(value), 1);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, &count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add(bucket, count);
        }
    }

    /// Returns the number of counted values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the value that `percent` percent of the values do not exceed, or 0 if the histogram
    /// is empty.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted = ((self.count() as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(bucket);
            }
        }
        0
    }

    /// Formats the counts as one line, which [`from_text`](Self::from_text) parses.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (bucket, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            // Writing to a string cannot fail.
            let _ = write!(text, " {bucket}:{count}");
        }
        text
    }

    /// Parses the words of a line that [`to_text`](Self::to_text) wrote. Returns `None` if they are
    /// invalid.
    pub fn from_text<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut histogram = Self::default();
        for word in words {
            let (bucket, count) = word.split_once(':')?;
            histogram.add(bucket.parse().ok().filter(|&bucket| bucket < BUCKETS)?, count.parse().ok()?);
        }
        Some(histogram)
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += count;
    }
}

/// Number of buckets: more than any value needs.
const BUCKETS: usize = 64 << BITS;

fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    ((u64::from(shift) << BITS) + (value >> shift)) as usize
}

fn middle(bucket: usize) -> u64 {
    let shift = (bucket >> BITS).saturating_sub(1);
    let lowest = ((bucket - (shift << BITS)) as u64) << shift;
    lowest + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket's middle is within 3 % of its values, and buckets are in the order of their values.
    #[test]
    fn buckets_are_near_their_values() {
        let mut last = 0;
        for value in (0..63).flat_map(|power| [1_u64 << power, (1 << power) + (1 << power) / 3]).chain([0, u64::MAX]) {
            let near = middle(bucket(value));
            assert!(near.abs_diff(value) as f64 <= value as f64 * 0.032, "{value} {near}");
            assert!(bucket(value) < BUCKETS);
        }
        for value in 0..100_000 {
            assert!(bucket(value) >= last);
            last = bucket(value);
        }
    }

    /// The text form keeps the percentiles.
    #[test]
    fn text_and_back() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        let again = Histogram::from_text(histogram.to_text().split_whitespace()).unwrap();
        assert_eq!(again.percentile(50.0), histogram.percentile(50.0));
        assert!(again.percentile(50.0).abs_diff(500_000) < 16_000);
        assert!(again.percentile(99.9).abs_diff(999_000) < 32_000);
        assert!(Histogram::from_text(["9999999:1"].into_iter()).is_none());
    }
}
