//! Medians and quartiles.

use serde::{Deserialize, Serialize};

/// The middle of some numbers, and what half of them lie between.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter is less.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// A quarter is more.
    pub high: f64,
}

/// Of these; `None` of none.
pub fn spread(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = numbers.into_iter().filter(|number| number.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |part: f64| {
        let place = last as f64 * part;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some(Spread { low: at(0.25), median: at(0.5), high: at(0.75) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between two numbers lies what is between them.
    #[test]
    fn of_few_numbers() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([3.0]), Some(Spread { low: 3.0, median: 3.0, high: 3.0 }));
        assert_eq!(spread([5.0, 1.0, 3.0, 2.0, 4.0]), Some(Spread { low: 2.0, median: 3.0, high: 4.0 }));
        assert_eq!(spread([1.0, 2.0]).map(|it| it.median), Some(1.5));
    }
}
