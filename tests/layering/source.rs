//! The source as the checks read it: without comments, contents of literals, and items of unit
//! tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A file of the source.
pub(crate) struct Source {
    /// The path below `src`.
    pub(crate) path: PathBuf,
    /// The first part of the path, without its extension: the room.
    pub(crate) room: String,
    /// The text as [`code`] leaves it.
    pub(crate) code: String,
}

impl Source {
    /// A file with this text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let room = path.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        Self { path: path.into(), room, code: code(text) }
    }

    /// The path, with `/` on every system.
    pub(crate) fn name(&self) -> String {
        self.path.to_str().unwrap().replace('\\', "/")
    }
}

/// All files of the library, the crate's root and no files of unit tests. They are read once.
pub(crate) fn library() -> &'static [Source] {
    static LIBRARY: LazyLock<Vec<Source>> = LazyLock::new(read_library);
    &LIBRARY
}

fn read_library() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                if !relative.with_extension("").iter().any(|part| part == "tests") {
                    found.push(Source::new(relative.to_str().unwrap(), &fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    assert!(found.len() > 10, "the source was not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The files that are compiled outside of tests: a module declares each of them, up to the root.
pub(crate) fn declared(sources: &[Source]) -> Vec<&Source> {
    let mut kept: Vec<_> = sources.iter().collect();
    loop {
        let count = kept.len();
        let declaring: Vec<(String, String)> =
            kept.iter().map(|source| (module(&source.name()), source.code.clone())).collect();
        kept.retain(|source| {
            let module = module(&source.name());
            let (parent, name) = module.rsplit_once('/').unwrap_or(("", &module));
            let is_declared =
                |(other, code): &(String, String)| other == parent && code.contains(&format!("mod {name};"));
            module.is_empty() || declaring.iter().any(is_declared)
        });
        if kept.len() == count {
            return kept;
        }
    }
}

/// The module that a file is: `reactor/net` of `reactor/net/mod.rs`, nothing of the crate's root.
pub(crate) fn module(file: &str) -> String {
    let module = file.trim_end_matches(".rs");
    if module == "lib" { String::new() } else { module.trim_end_matches("/mod").to_owned() }
}

/// The text without comments, with empty literals, and without items under `#[cfg(test)]`. Lines
/// keep their numbers.
pub(crate) fn code(text: &str) -> String {
    without_tests(&without_prose(text))
}

/// Replaces comments and the contents of literals by nothing but their line breaks.
fn without_prose(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = kept.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, replacement) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), "")
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), "")
        } else if let Some(length) = raw_string(rest).filter(|_| !after_word) {
            (length, "\"\"")
        } else if first == '"' {
            (quoted(rest, '"'), "\"\"")
        } else if first == '\'' && is_character(rest) {
            (quoted(rest, '\''), "' '")
        } else {
            (first.len_utf8(), &rest[..first.len_utf8()])
        };
        kept.push_str(replacement);
        if length > first.len_utf8() {
            kept.extend(rest[..length].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[length..];
    }
    kept
}

/// The length of a literal in quotes, with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw string, if the text begins with one.
fn raw_string(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let opened = inner.trim_start_matches('#');
    let hashes = inner.len() - opened.len();
    let end = format!("\"{}", "#".repeat(hashes));
    let body = opened.strip_prefix('"')?;
    Some(body.find(&end).map_or(text.len(), |at| text.len() - body.len() + at + end.len()))
}

/// True if a quote begins a character, and no lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Replaces each item, field or statement under `#[cfg(test)]` by its line breaks.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = ["#[cfg(test)]", "#[cfg(all(test,"].iter().filter_map(|cfg| rest.find(cfg)).min() {
        kept.push_str(&rest[..at]);
        let removed = item_length(&rest[at..]);
        kept.extend(rest[at..at + removed].chars().filter(|c| *c == '\n'));
        rest = &rest[at + removed..];
    }
    kept + rest
}

/// The length of an item, field or statement, with the attributes in front of it.
fn item_length(text: &str) -> usize {
    let mut at = 0;
    while text[at..].trim_start().starts_with('#') {
        at += text[at..].find('[').unwrap();
        at += bracketed(&text[at..]);
    }
    let declared = text[at..].trim_start();
    let declared = declared.strip_prefix("pub").map_or(declared, str::trim_start);
    let declared = if declared.starts_with('(') { &declared[bracketed(declared)..] } else { declared };
    let keyword = declared.split(|c: char| !c.is_alphanumeric() && c != '_').find(|word| !word.is_empty());
    let ends_with_block = keyword.is_some_and(|word| {
        ["fn", "mod", "struct", "enum", "impl", "trait", "unsafe", "async", "if", "for", "while", "loop"]
            .contains(&word)
    });
    let is_item =
        ends_with_block || keyword.is_some_and(|word| ["use", "let", "const", "static", "type"].contains(&word));
    while let Some(c) = text[at..].chars().next() {
        match c {
            '(' | '[' | '{' => {
                at += bracketed(&text[at..]);
                if c == '{' && ends_with_block {
                    return at;
                }
                continue;
            }
            ';' => return at + 1,
            ',' if !is_item => return at + 1,
            ')' | ']' | '}' => return at,
            _ => at += c.len_utf8(),
        }
    }
    at
}

/// The length of a text in brackets, with its brackets.
fn bracketed(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// A word or a mark, and its line. `::` is one mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// The words and marks of a text.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while let Some(c) = code[at..].chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(c) {
            code[at..].find(|c| !is_word(c)).unwrap_or(code.len() - at)
        } else if code[at..].starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if c == '\n' {
            line += 1;
        } else if !c.is_whitespace() {
            found.push(Token { text: &code[at..at + length], line });
        }
        at += length;
    }
    found
}

#[test]
fn comments_literals_and_tests_are_not_code() {
    let text = r##"
        use crate::reactor::Port; // crate::endpoints
        /* crate::tls */ const QUOTE: char = '"'; const BRACE: &str = "} // crate::task"; fn f<'a>(x: &'a str) {}
        const RAW: &str = r#"crate::locks " { "#;
        #[cfg(test)]
        #[allow(dead_code)]
        pub(in crate::reactor) mod tests { fn g() { crate::address::h() } }
        struct S { #[cfg(test)] faults: crate::faults::Faults, kept: u8 }
        fn f() {
            #[cfg(test)]
            let x = match y { _ => crate::testing::g() };
            crate::failure::g()
        }
    "##;
    let code = code(text);
    for gone in ["endpoints", "tls", "task", "locks", "address", "faults", "testing"] {
        assert!(!code.contains(gone), "{gone} is left of {code}");
    }
    for kept in ["crate::reactor::Port;", "fn f<'a>(x: &'a str) {}", "kept: u8", "crate::failure::g()"] {
        assert!(code.contains(kept), "{kept} is gone from {code}");
    }
    assert_eq!(code.lines().count(), text.lines().count());
    let last = tokens(&code).into_iter().rfind(|token| token.text == "failure").unwrap();
    assert_eq!(last.line, 12);
}

#[test]
fn a_file_of_tests_is_not_declared() {
    let sources = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "pub(crate) mod b;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod faults;"),
        ("a/b.rs", ""),
        ("a/faults.rs", ""),
        ("a/tests/mod.rs", "mod deep;"),
        ("a/tests/deep.rs", ""),
    ];
    let sources = sources.map(|(path, text)| Source::new(path, text));
    let kept = declared(&sources);
    assert_eq!(kept.iter().map(|source| source.name()).collect::<Vec<_>>(), ["lib.rs", "a/mod.rs", "a/b.rs"]);
}
