//! Conditional requests and ranges of RFC 9110, without I/O: [`judge`] says which part of a file a
//! request asks for, in the order of its section 13.2.2.
//!
//! | step | header | answer, if it does not hold |
//! |---|---|---|
//! | 1 | `If-Match`, or else `If-Unmodified-Since` | 412 |
//! | 2 | `If-None-Match`, or else `If-Modified-Since` | 304 |
//! | 3 | `If-Range`, for a `Range` of GET | the whole file |
//! | 4 | `Range` | 206; 416 for a range that has no byte of the file |
//!
//! One range is answered. Several, and malformed ones, are answered by the whole file, which the
//! RFC allows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::{fmt_http_date, parse_http_date};
use hyper::Method;
use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};

/// The version of a file, by its length and its time.
#[derive(Debug)]
pub(super) struct FileVersion {
    pub(super) len: u64,
    /// A strong validator: the time has nanoseconds.
    pub(super) tag: String,
    /// The time of the last change in whole seconds. `None` for a time that HTTP can't express, and
    /// for one in the future, which is no validator.
    modified: Option<SystemTime>,
    /// The time is long enough ago for it to name one version only.
    is_time_strong: bool,
}

impl FileVersion {
    pub(super) fn new(len: u64, modified: SystemTime, now: SystemTime) -> Self {
        let since = modified.duration_since(UNIX_EPOCH);
        let nanoseconds = since.as_ref().map_or(0, Duration::as_nanos);
        let seconds = since.ok().filter(|_| modified <= now).map(|since| Duration::from_secs(since.as_secs()));
        Self {
            len,
            tag: format!("\"{nanoseconds:x}-{len:x}\""),
            modified: seconds.map(|since| UNIX_EPOCH + since),
            is_time_strong: now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1)),
        }
    }

    /// Returns the text of `Last-Modified`.
    pub(super) fn last_modified(&self) -> Option<String> {
        self.modified.map(fmt_http_date)
    }
}

/// The part of a file that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    /// From this byte to that one, both included.
    Part(u64, u64),
    /// No byte of the range is in the file: 416.
    OutOfRange,
    /// The client has this version: 304.
    NotModified,
    /// The client meant another version: 412.
    PreconditionFailed,
}

/// Judges the headers of a GET or HEAD by the version of its file.
pub(super) fn judge(method: &Method, headers: &HeaderMap, version: &FileVersion) -> Verdict {
    let date = |name| text(headers, name).and_then(|date| parse_http_date(date).ok());
    // A comparison of the time needs one.
    let is_newer_than = |date: SystemTime| version.modified.is_none_or(|modified| modified > date);

    let is_expected = if headers.contains_key(IF_MATCH) {
        has_tag(headers, IF_MATCH, &version.tag, false)
    } else {
        date(IF_UNMODIFIED_SINCE).is_none_or(|date| !is_newer_than(date))
    };
    if !is_expected {
        return Verdict::PreconditionFailed;
    }
    let is_known = if headers.contains_key(IF_NONE_MATCH) {
        has_tag(headers, IF_NONE_MATCH, &version.tag, true)
    } else {
        date(IF_MODIFIED_SINCE).is_some_and(|date| !is_newer_than(date))
    };
    if is_known {
        return Verdict::NotModified;
    }
    match text(headers, RANGE) {
        Some(range) if method == Method::GET && is_same_version(headers, version) => part(range, version.len),
        _ => Verdict::Whole,
    }
}

/// A range of another version would not fit to the bytes that the client has.
fn is_same_version(headers: &HeaderMap, version: &FileVersion) -> bool {
    if !headers.contains_key(IF_RANGE) {
        return true;
    }
    let validator = text(headers, IF_RANGE).unwrap_or_default();
    if validator.ends_with('"') {
        return validator == version.tag;
    }
    let is_same_time = parse_http_date(validator).is_ok_and(|date| version.modified == Some(date));
    is_same_time && version.is_time_strong
}

/// Returns `true` if a list of validators has this one, or is `*`. A weak comparison ignores the
/// mark of weak ones; a strong comparison ignores those.
fn has_tag(headers: &HeaderMap, name: HeaderName, tag: &str, is_weak: bool) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|given| {
        let given = if is_weak { given.strip_prefix("W/").unwrap_or(given) } else { given };
        given == "*" || given == tag
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Reads the header of a range in a file of `len` bytes.
fn part(text: &str, len: u64) -> Verdict {
    let Some((unit, range)) = text.split_once('=') else { return Verdict::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Verdict::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Verdict::Whole;
    }
    match (bound(first), bound(last)) {
        (Bound::Malformed, _) | (_, Bound::Malformed) | (Bound::Open, Bound::Open) => Verdict::Whole,
        (Bound::At(first), Bound::At(last)) if first > last => Verdict::Whole,
        (Bound::At(first), _) if first >= len => Verdict::OutOfRange,
        (Bound::At(first), Bound::At(last)) => Verdict::Part(first, last.min(len - 1)),
        (Bound::At(first), Bound::Open) => Verdict::Part(first, len - 1),
        (Bound::Open, Bound::At(count)) if count == 0 || len == 0 => Verdict::OutOfRange,
        (Bound::Open, Bound::At(count)) => Verdict::Part(len.saturating_sub(count), len - 1),
    }
}

enum Bound {
    Open,
    At(u64),
    Malformed,
}

/// Reads decimal digits, and nothing else: a sign is none. A number that is too large is beyond the
/// end of every file.
fn bound(text: &str) -> Bound {
    match text {
        "" => Bound::Open,
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => Bound::At(text.parse().unwrap_or(u64::MAX)),
        _ => Bound::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    const CHANGED: u64 = 1_700_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A file of ten bytes that was changed an hour ago.
    fn version() -> FileVersion {
        FileVersion::new(10, at(CHANGED) + Duration::from_millis(250), at(CHANGED + 3600))
    }

    fn judged(headers: &[(HeaderName, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        judge(&Method::GET, &map, &version())
    }

    #[test]
    fn ranges_are_read() {
        for (text, verdict) in [
            ("bytes=0-0", Verdict::Part(0, 0)),
            ("BYTES=2-5", Verdict::Part(2, 5)),
            ("bytes=2-500", Verdict::Part(2, 9)),
            ("bytes=2-99999999999999999999999", Verdict::Part(2, 9)),
            ("bytes=9-", Verdict::Part(9, 9)),
            ("bytes=10-", Verdict::OutOfRange),
            ("bytes=10-20", Verdict::OutOfRange),
            ("bytes=99999999999999999999999-", Verdict::OutOfRange),
            ("bytes=-3", Verdict::Part(7, 9)),
            ("bytes=-30", Verdict::Part(0, 9)),
            ("bytes=-0", Verdict::OutOfRange),
            ("bytes=5-2", Verdict::Whole),
            ("bytes=+1-2", Verdict::Whole),
            ("bytes=1-x", Verdict::Whole),
            ("bytes=10-x", Verdict::Whole),
            ("bytes=0-1,3-4", Verdict::Whole),
            ("bytes=-", Verdict::Whole),
            ("bytes", Verdict::Whole),
            ("lines=1-2", Verdict::Whole),
        ] {
            assert_eq!(part(text, 10), verdict, "{text}");
        }
        for text in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(part(text, 0), Verdict::OutOfRange, "{text} of an empty file");
        }
    }

    #[test]
    fn validators_decide_in_their_order() {
        let tag = &*version().tag;
        let (weak, list) = (format!("W/{tag}"), format!("\"x\", {tag}"));
        let (then, before) = (&*fmt_http_date(at(CHANGED)), &*fmt_http_date(at(CHANGED - 1)));
        for (headers, verdict) in [
            (vec![(IF_NONE_MATCH, tag)], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, &*weak)], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, &*list)], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, tag)], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "*")], Verdict::NotModified),
            (vec![(IF_NONE_MATCH, "\"x\"")], Verdict::Whole),
            (vec![(IF_MODIFIED_SINCE, then)], Verdict::NotModified),
            (vec![(IF_MODIFIED_SINCE, before)], Verdict::Whole),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Verdict::Whole),
            // The tag comes before the time.
            (vec![(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, then)], Verdict::Whole),
            (vec![(IF_MATCH, tag)], Verdict::Whole),
            (vec![(IF_MATCH, &*weak)], Verdict::PreconditionFailed),
            (vec![(IF_MATCH, "\"x\""), (IF_NONE_MATCH, tag)], Verdict::PreconditionFailed),
            (vec![(IF_UNMODIFIED_SINCE, then)], Verdict::Whole),
            (vec![(IF_UNMODIFIED_SINCE, before)], Verdict::PreconditionFailed),
            (vec![(IF_NONE_MATCH, tag), (RANGE, "bytes=1-2")], Verdict::NotModified),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, tag)], Verdict::Part(1, 2)),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, &*weak)], Verdict::Whole),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, "\"x\"")], Verdict::Whole),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, then)], Verdict::Part(1, 2)),
            (vec![(RANGE, "bytes=1-2"), (IF_RANGE, before)], Verdict::Whole),
            (vec![(RANGE, "bytes=20-"), (IF_RANGE, "\"x\"")], Verdict::Whole),
        ] {
            assert_eq!(judged(&headers), verdict, "{headers:?}");
        }
    }

    #[test]
    fn a_range_of_head_is_ignored() {
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=1-2"))]);
        assert_eq!(judge(&Method::HEAD, &headers, &version()), Verdict::Whole);
    }

    /// A file that was changed within the last second may change again at the same time.
    #[test]
    fn a_fresh_time_is_no_strong_validator() {
        let version = FileVersion::new(10, at(CHANGED), at(CHANGED) + Duration::from_millis(999));
        let date = HeaderValue::from_str(&fmt_http_date(at(CHANGED))).unwrap();
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=1-2")), (IF_RANGE, date)]);
        assert_eq!(judge(&Method::GET, &headers, &version), Verdict::Whole);
    }

    #[test]
    fn a_time_that_http_cannot_express_is_left_out() {
        let now = at(CHANGED);
        for modified in [UNIX_EPOCH - Duration::from_secs(1), now + Duration::from_secs(1)] {
            assert_eq!(FileVersion::new(10, modified, now).last_modified(), None, "{modified:?}");
        }
        assert!(FileVersion::new(10, now, now).last_modified().is_some());
    }
}
