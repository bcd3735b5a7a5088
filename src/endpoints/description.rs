//! [`Description`]: an endpoint written as a string, split into its fields (Twisted: the strings of
//! `serverFromString` and `clientFromString`, `quoteStringArgument`).
//!
//! This file implements the grammar and knows no type of endpoint. The arguments of a type, and
//! their permitted values, are the business of [`Arguments`](super::Arguments). No code in this
//! file does a look-up, opens a file or panics.
//!
//! ```text
//! description := field *( ":" field )
//! field       := value                     positional; the first one is the type
//!              | name "=" value            keyword; the first bare "=" splits, further ones are part of the value
//! value       := *( char | "\" any-char )  after a backslash every character stands for itself
//!              | "[" IPv6-address "]"      its colons do not split; the brackets belong to the value
//! ```
//!
//! As in Twisted, positional fields may follow keywords, the last of several equal keywords wins,
//! and an empty field is an empty positional. Differences from Twisted:
//!
//! - The type is case-insensitive, for every type.
//! - A backslash at the very end is an error that says so.
//! - `[::1]` needs no escapes. This holds only if the whole value is an IPv6 address in brackets:
//!   `[`, an address, an optional scope (`%eth0`), `]`, and then a colon or the end. `[a:b]` is
//!   split as in Twisted. Twisted splits both, and the descriptions that it then accepts are either
//!   accidents (its clients ignore surplus fields: `tcp:host=[1:2::3]:port=80` is a host `[1` to
//!   it) or name files such as `[1`. Such a name is written `\[1`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::description_error::{DescriptionError, DescriptionErrorKind};
use crate::address::parse_ipv6;

/// An endpoint as a string, split into its type and its fields (Twisted: the strings of
/// `serverFromString` and `clientFromString`).
///
/// Colons separate the fields. The first `=` of a field separates its name from its value. Fields
/// without one are positional, and the first positional field is the type, in any case. A backslash
/// takes the next character literally (`\:`, `\=`, `\\`). A value that is an IPv6 address in
/// brackets needs no backslashes (`[::1]`, which Twisted splits; a value that really starts with a
/// bracket is written `\[`). Of several fields with the same name the last one counts.
///
/// ```
/// use ropewalk::endpoints::Description;
///
/// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
/// let description = Description::parse(r"TCP:8888:interface=\:\:1")?;
/// assert_eq!(description.kind(), "tcp");
/// assert_eq!(description.fields()[0].value(), "8888");
/// assert_eq!(description.keyword("interface").map(|field| field.value()), Some("::1"));
/// assert_eq!(description.to_string(), r"TCP:8888:interface=\:\:1");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    text: String,
    kind: Field,
    lower_case_kind: String,
    fields: Vec<Field>,
}

impl Description {
    /// Splits a description into its fields.
    ///
    /// # Errors
    /// [`NoType`](DescriptionErrorKind::NoType) if the first positional field is empty or there is
    /// none, [`TrailingBackslash`](DescriptionErrorKind::TrailingBackslash) if the text ends in the
    /// middle of an escape.
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        let mut fields = Vec::new();
        let mut at = 0;
        loop {
            let (field, end) = Field::read(text, at)?;
            fields.push(field);
            if end == text.len() {
                break;
            }
            at = end + ':'.len_utf8();
        }
        let Some(kind) = fields.iter().position(|field| field.name.is_none()) else {
            return Err(DescriptionError::new(text, 0..0, DescriptionErrorKind::NoType));
        };
        let kind = fields.remove(kind);
        if kind.value.is_empty() {
            return Err(DescriptionError::new(text, kind.range(), DescriptionErrorKind::NoType));
        }
        Ok(Self { text: text.to_owned(), lower_case_kind: kind.value.to_ascii_lowercase(), kind, fields })
    }

    /// Returns the type, in lower case: `tcp` for `TCP:80`.
    pub fn kind(&self) -> &str {
        &self.lower_case_kind
    }

    /// Returns all fields but the type, in the order in which they are written.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the keyword field with this name; the last one, if there are several.
    pub fn keyword(&self, name: &str) -> Option<&Field> {
        self.fields.iter().rfind(|field| field.name.as_deref() == Some(name))
    }

    /// Creates the error for an unknown type; `known` are the accepted types.
    ///
    /// ```
    /// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
    /// let description = ropewalk::endpoints::Description::parse("tpc:80")?;
    /// assert_eq!(
    ///     description.unknown_type(&["tcp", "unix"]).to_string(),
    ///     r#"in "tpc:80" at byte 0: "tpc" is not a type of endpoint: expected tcp or unix"#,
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn unknown_type(&self, known: &[&str]) -> DescriptionError {
        let known = known.iter().map(|&name| name.to_owned()).collect();
        self.error(self.kind_range(), DescriptionErrorKind::UnknownType { name: self.kind.value.clone(), known })
    }

    /// Returns the text from a byte offset on. In a type that prefixes another description, the
    /// position of a field is one.
    pub(super) fn text_from(&self, at: usize) -> &str {
        &self.text[at..]
    }

    /// Creates the error of this description for an error in its text from `at` on.
    pub(super) fn error_behind(&self, at: usize, error: DescriptionError) -> DescriptionError {
        let range = error.range();
        self.error(at + range.start..at + range.end, error.into_kind())
    }

    /// Returns the bytes of the type.
    pub(super) fn kind_range(&self) -> Range<usize> {
        self.kind.value_range()
    }

    /// Returns `true` for a field that is written in front of the type.
    pub(super) fn is_before_kind(&self, field: &Field) -> bool {
        field.at < self.kind.at
    }

    /// Creates an error about a part of the text: a field, its name or its value, or the end.
    pub(super) fn error(&self, range: Range<usize>, kind: DescriptionErrorKind) -> DescriptionError {
        DescriptionError::new(&self.text, range, kind)
    }

    /// Returns the empty range behind the last character, which errors about missing arguments
    /// point to.
    pub(super) fn end(&self) -> Range<usize> {
        self.text.len()..self.text.len()
    }
}

impl FromStr for Description {
    type Err = DescriptionError;

    fn from_str(text: &str) -> Result<Self, DescriptionError> {
        Self::parse(text)
    }
}

impl fmt::Display for Description {
    /// Writes the text that was parsed, unchanged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One field of a [`Description`]: a value, with or without a name.
///
/// ```
/// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
/// let description = ropewalk::endpoints::Description::parse(r"unix:address=/a\:b")?;
/// let field = &description.fields()[0];
/// assert_eq!((field.name(), field.value()), (Some("address"), "/a:b"));
/// assert_eq!((field.position(), field.value_position()), (5, 13));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    at: usize,
    name: Option<String>,
    value: String,
    value_at: usize,
    end: usize,
}

impl Field {
    /// Reads the field that starts at `at`. Returns it with its end: the position of a colon, or
    /// the end of the text.
    fn read(text: &str, at: usize) -> Result<(Self, usize), DescriptionError> {
        let (first, end) = read_value(text, at, &[':', '='])?;
        if !text[end..].starts_with('=') {
            return Ok((Self { at, name: None, value: first, value_at: at, end }, end));
        }
        let value_at = end + '='.len_utf8();
        let (value, end) = read_value(text, value_at, &[':'])?;
        Ok((Self { at, name: Some(first), value, value_at, end }, end))
    }

    /// Returns the name in front of the `=`, if it is a keyword field. It may be empty.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the value, without its escapes.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns the byte offset in the description at which the field starts.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the byte offset in the description at which the value starts: behind the `=`, if
    /// there is one.
    pub fn value_position(&self) -> usize {
        self.value_at
    }

    /// Returns the bytes of the description that are the field, with its escapes.
    pub fn range(&self) -> Range<usize> {
        self.at..self.end
    }

    /// Returns the bytes of the description that are the value, with its escapes.
    pub fn value_range(&self) -> Range<usize> {
        self.value_at..self.end
    }

    /// Returns the bytes of the description that are the name, with its escapes. For a field
    /// without a name they are none.
    pub(super) fn name_range(&self) -> Range<usize> {
        let equals_sign = usize::from(self.name.is_some());
        self.at..self.value_at - equals_sign
    }
}

/// Escapes a string so that a description takes all of it as (a part of) one value (Twisted:
/// `quoteStringArgument`).
///
/// Unlike Twisted's function it also escapes `=`, which would turn a positional value into a
/// keyword, and `[`, so that concatenated strings cannot form an IPv6 address in brackets. Twisted
/// understands the escaped text.
///
/// ```
/// use ropewalk::endpoints::{Description, quote_string_argument};
///
/// # fn main() -> Result<(), ropewalk::endpoints::DescriptionError> {
/// let path = r"/run/a=b:c\d";
/// let description = Description::parse(&format!("unix:{}", quote_string_argument(path)))?;
/// assert_eq!(description.fields()[0].value(), path);
/// # Ok(())
/// # }
/// ```
pub fn quote_string_argument(argument: &str) -> Cow<'_, str> {
    if !argument.contains(SPECIAL) {
        return argument.into();
    }
    let mut quoted = String::with_capacity(argument.len() + 8);
    for char in argument.chars() {
        if SPECIAL.contains(&char) {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.into()
}

/// Returns the text between the brackets that enclose all of `text`, if there are any.
pub(super) fn without_brackets(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

/// Reads the value that starts at `at`, without its escapes. Returns it with its end: the position
/// of one of `stops`, or the end of the text.
fn read_value(text: &str, at: usize, stops: &[char]) -> Result<(String, usize), DescriptionError> {
    if let Some(end) = bracketed_ipv6(text, at) {
        return Ok((text[at..end].to_owned(), end));
    }
    let mut value = String::new();
    let mut chars = text[at..].char_indices();
    while let Some((offset, char)) = chars.next() {
        if stops.contains(&char) {
            return Ok((value, at + offset));
        }
        if char != '\\' {
            value.push(char);
        } else if let Some((_, literal)) = chars.next() {
            value.push(literal);
        } else {
            let backslash = at + offset..text.len();
            return Err(DescriptionError::new(text, backslash, DescriptionErrorKind::TrailingBackslash));
        }
    }
    Ok((value, text.len()))
}

/// Returns the end of the value that starts at `at`, if it is an IPv6 address in brackets and
/// nothing else.
fn bracketed_ipv6(text: &str, at: usize) -> Option<usize> {
    let inside = text[at..].strip_prefix('[')?;
    // It stops at the next bracket, so that many opening ones do not each search the whole text.
    let close = inside.find(['[', ']'])?;
    let behind = inside[close..].strip_prefix(']')?;
    let is_whole = behind.is_empty() || behind.starts_with(':');
    (is_whole && parse_ipv6(&inside[..close]).is_some()).then_some(text.len() - behind.len())
}

/// Characters with a meaning in a description, which are escaped to have none.
const SPECIAL: [char; 4] = ['\\', ':', '=', '['];
