//! Numbers of bytes and times, short enough for a column.

use std::time::Duration;

/// Returns a number of bytes with three digits and a unit of 1000: `999 B`, `1.23 kB`, `45.6 MB`.
pub(crate) fn bytes(count: f64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = count.max(0.0);
    let mut unit = 0;
    // 999.5 would be written as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match (unit, value) {
        (0, _) => 0,
        (_, ..9.995) => 2,
        (_, ..99.95) => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Returns a time in its two largest units: `59s`, `3m07s`, `2h05m`, `4d01h`.
pub(crate) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        let texts = [0.0, 999.0, 999.6, 1234.0, 9_994.0, 9_996.0, 99_960.0, 999_600.0, 1e15, 1e19].map(bytes);
        let expected =
            ["0 B", "999 B", "1.00 kB", "1.23 kB", "9.99 kB", "10.0 kB", "100 kB", "1.00 MB", "1.00 PB", "10000 PB"];
        assert_eq!(texts, expected);
        assert_eq!(bytes(-1.0), "0 B");
    }

    #[test]
    fn ages_have_two_units() {
        let texts = [0, 59, 60, 187, 3600, 7500, 86400, 349_200].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(texts, ["0s", "59s", "1m00s", "3m07s", "1h00m", "2h05m", "1d00h", "4d01h"]);
    }
}
