//! An error in a description, with carets under the place.

use ropewalk::endpoints::DescriptionError;

/// Returns the description on a line, carets below the characters that the error is about, and the
/// error. A place behind the end has one caret.
pub(crate) fn show(error: &DescriptionError) -> String {
    let description = error.description();
    let range = error.range();
    let before = width(&description[..range.start]);
    let carets = width(&description[range]).max(1);
    format!("{}\n{}{}\n{}", visible(description), " ".repeat(before), "^".repeat(carets), error.kind())
}

/// Returns the text with its control characters as `?`, so that each character has its own column.
fn visible(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// Number of columns of a text. Wide characters count as one: a caret may then stand before them.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use ropewalk::endpoints::{Description, TcpClientSpec, TcpServerSpec};

    use super::*;

    fn server(text: &str) -> String {
        show(&Description::parse(text).and_then(|text| TcpServerSpec::from_description(&text)).unwrap_err())
    }

    #[test]
    fn carets_stand_under_the_words() {
        assert_eq!(
            server("tcp:http"),
            "tcp:http\n    ^^^^\n\"http\" is not a port: expected a whole number from 0 to 65535"
        );
        assert!(server("tcp").starts_with("tcp\n   ^\nport is missing"));
        assert!(server("").starts_with("\n^\nthere is no type"));
        assert!(server("é:1").starts_with("é:1\n^\n\"é\" is not a type"));
        assert!(server("tcp:80:colour=blue").starts_with("tcp:80:colour=blue\n       ^^^^^^\n\"colour\" is not"));
        assert!(server("tcp:80:backlog=é\n").starts_with("tcp:80:backlog=é?\n               ^^\n"));
        assert!(server(r"tcp:80\").starts_with("tcp:80\\\n      ^\na backslash ends"));
        let client = Description::parse("tcp:h:80:81").and_then(|text| TcpClientSpec::from_description(&text));
        assert!(show(&client.unwrap_err()).starts_with("tcp:h:80:81\n         ^^\n\"81\" is one field too many"));
    }
}
