//! Medians and quartiles.

use serde::{Deserialize, Serialize};

/// Median and quartiles of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Lower quartile.
    pub low: f64,
    /// Median.
    pub median: f64,
    /// Upper quartile.
    pub high: f64,
}

/// Returns the spread of the finite numbers, or `None` if there are none.
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

    /// Quartiles are interpolated between neighbouring numbers.
    #[test]
    fn of_few_numbers() {
        assert_eq!(spread([]), None);
        assert_eq!(spread([3.0]), Some(Spread { low: 3.0, median: 3.0, high: 3.0 }));
        assert_eq!(spread([5.0, 1.0, 3.0, 2.0, 4.0]), Some(Spread { low: 2.0, median: 3.0, high: 4.0 }));
        assert_eq!(spread([1.0, 2.0]).map(|it| it.median), Some(1.5));
    }
}
