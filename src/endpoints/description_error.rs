//! [`DescriptionError`]: where a description is wrong, and what was expected there. Its texts name
//! the place, the words at the place, and an expectation.

use std::fmt::{self, Write as _};
use std::ops::Range;

use thiserror::Error;

/// An error in a description: its kind, its position, and the text that was expected there.
///
/// Twisted raises `ValueError`, `TypeError`, `IndexError` or `RuntimeError`, without a position.
///
/// ```
/// use ropewalk::endpoints::{Description, TcpServerSpec};
///
/// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
/// let error = TcpServerSpec::from_description(&Description::parse("tcp:http")?).unwrap_err();
/// assert_eq!(error.position(), 4);
/// assert_eq!(
///     error.to_string(),
///     r#"in "tcp:http" at byte 4: "http" is not a port: expected a whole number from 0 to 65535"#,
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("in {} at byte {}: {kind}", Quoted(.description), .range.start)]
pub struct DescriptionError {
    description: String,
    range: Range<usize>,
    kind: DescriptionErrorKind,
}

impl DescriptionError {
    pub(super) fn new(description: &str, range: Range<usize>, kind: DescriptionErrorKind) -> Self {
        debug_assert!(description.get(range.clone()).is_some(), "a range is a field or a part of one");
        Self { description: description.to_owned(), range, kind }
    }

    /// Returns the whole description.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the byte offset of the error in the description: never beyond its end, and never
    /// inside a character.
    pub fn position(&self) -> usize {
        self.range.start
    }

    /// Returns the bytes of the description that the error is about: a field, its name or its
    /// value, with its escapes. It is empty where something is missing. Both ends are positions as
    /// [`position`](Self::position) returns them.
    ///
    /// ```
    /// use ropewalk::endpoints::{Description, TcpClientSpec};
    ///
    /// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
    /// let text = "tcp:localhost:http:timeout=5";
    /// let error = TcpClientSpec::from_description(&Description::parse(text)?).unwrap_err();
    /// assert_eq!(&text[error.range()], "http");
    /// # Ok(())
    /// # }
    /// ```
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> &DescriptionErrorKind {
        &self.kind
    }

    pub(super) fn into_kind(self) -> DescriptionErrorKind {
        self.kind
    }
}

/// The kinds of errors in a description.
///
/// ```
/// use ropewalk::endpoints::{Description, DescriptionErrorKind};
///
/// let error = Description::parse("").unwrap_err();
/// assert!(matches!(error.kind(), DescriptionErrorKind::NoType));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DescriptionErrorKind {
    /// The description does not start with a type, or is empty.
    #[error("there is no type: expected one, as in tcp:8888")]
    NoType,
    /// The type of endpoint is unknown here; a type may be one for servers or for clients only.
    #[error("{} is not a type of endpoint: expected {}", Quoted(.name), CommaList(.known))]
    UnknownType {
        /// The type, as written.
        name: String,
        /// The accepted types.
        known: Vec<String>,
    },
    /// A required argument is missing.
    #[error("{name} is missing: expected a field for it, such as {name}=...")]
    Missing {
        /// The argument.
        name: &'static str,
    },
    /// The type has no argument of this name.
    #[error("{} is not an argument of this type of endpoint: expected {}", Quoted(.name), Likeliest(.name, .known))]
    Unknown {
        /// The keyword, as written.
        name: String,
        /// The names of the arguments that the type takes.
        known: Vec<&'static str>,
    },
    /// There are more positional fields than the type takes. An address whose colons are not
    /// escaped causes this error.
    #[error(
        "{} is one field too many: expected {} without a name (in a value, a colon is written \\:, and an IPv6 address \
         may be in brackets)",
        Quoted(.value),
        CommaList(.positional)
    )]
    TooMany {
        /// The first surplus field.
        value: String,
        /// The arguments that may be given by position.
        positional: Vec<&'static str>,
    },
    /// An argument is given by position and by name.
    #[error("{name} is given twice: expected it by its position or as {name}=, not both")]
    Repeated {
        /// The argument.
        name: &'static str,
    },
    /// The value of an argument is not permitted.
    #[error("{} is not {} {name}: expected {expected}", Quoted(.value), article(.name))]
    BadValue {
        /// The argument.
        name: &'static str,
        /// Its value, without escapes.
        value: String,
        /// The text that was expected.
        expected: String,
    },
    /// The arguments are well-formed but unusable: for example, a certificate cannot be read, or a
    /// key does not match it.
    #[error("the arguments cannot be used: {reason}")]
    Unusable {
        /// The reason.
        reason: String,
    },
    /// The last character is a backslash that escapes nothing.
    #[error("a backslash ends the description: expected the character that it stands for (\\\\ is a backslash)")]
    TrailingBackslash,
}

fn article(name: &str) -> &'static str {
    if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// Shows text in quotes, on one line. A backslash stands for itself, as in the description;
/// invisible characters are escaped.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '\\' | '"' | '\'' => f.write_char(char)?,
                _ => char.escape_debug().fmt(f)?,
            }
        }
        f.write_char('"')
    }
}

/// Shows the known name that was meant, if one differs from the written one by nothing but case,
/// hyphens and underscores; else all of them.
struct Likeliest<'a>(&'a str, &'a [&'static str]);

impl fmt::Display for Likeliest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        match self.1.iter().find(|known| bare(known) == bare(self.0)) {
            Some(meant) => f.write_str(meant),
            None => CommaList(self.1).fmt(f),
        }
    }
}

/// Shows names separated by commas, with `or` before the last.
struct CommaList<'a, S>(&'a [S]);

impl<S: fmt::Display> fmt::Display for CommaList<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, others)) = self.0.split_last() else { return f.write_str("none") };
        for (index, name) in others.iter().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { ", " })?;
        }
        write!(f, "{}{last}", if others.is_empty() { "" } else { " or " })
    }
}
