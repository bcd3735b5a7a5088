//! The parts of a core keep their fields: see `docs/decisions/001-a-core-in-parts.md`.
//!
//! A private field is open to its module and to what is in it. So a part that is one file has a
//! file without modules in it but unit tests; a part that is a folder stands in the folder's
//! `mod.rs`, whose other files open its fields.

use super::source::{Source, Token, library, tokens};

/// Each part, and where it is defined. `mod.rs`: the folder is the part.
const PARTS: &[(&str, &str)] = &[
    ("Run", "reactor/run_state.rs"),
    ("Threads", "reactor/threads/mod.rs"),
    ("Net", "reactor/net/mod.rs"),
    ("SignalHandling", "reactor/signal_handling.rs"),
    ("Triggers", "reactor/triggers.rs"),
    ("Aftermath", "reactor/aftermath.rs"),
    ("Postponed", "reactor/postponed.rs"),
];

/// Returns a line for each field of a part that others can name.
fn complaints(sources: &[Source], part: &str, place: &str) -> Vec<String> {
    let Some(source) = sources.iter().find(|source| source.name() == place) else {
        return vec![format!("{place}: there is no such file")];
    };
    let tokens = tokens(&source.code);
    let is_definition = |two: &[Token<'_>]| two[0].text == "struct" && two[1].text == part;
    let Some(at) = tokens.windows(2).position(is_definition) else {
        return vec![format!("{place}: it does not define {part}")];
    };
    let mut wrong = Vec::new();
    let mut depth = 0;
    for token in &tokens[at + 2..] {
        match token.text {
            "{" | "(" => depth += 1,
            "}" | ")" => depth -= 1,
            "pub" => wrong.push(format!("{place}:{}: a field of {part} is open to others", token.line)),
            _ => {}
        }
        if depth == 0 && ["}", ";"].contains(&token.text) {
            break;
        }
    }
    if !place.ends_with("/mod.rs") && tokens.iter().any(|token| token.text == "mod") {
        wrong.push(format!("{place}: a module in it could open the fields of {part}"));
    }
    wrong
}

#[test]
fn no_field_of_a_part_is_named_outside_of_its_file_or_folder() {
    let wrong: Vec<_> = PARTS.iter().flat_map(|(part, place)| complaints(library(), part, place)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_core_keeps_every_part_of_the_table() {
    let core = library().iter().find(|source| source.name() == "reactor/core.rs").unwrap();
    for (part, _) in PARTS {
        let is_kept = [",", "<"].iter().any(|behind| core.code.contains(&format!(": {part}{behind}")));
        assert!(is_kept, "the core keeps no {part}");
    }
}

#[test]
fn an_open_field_is_found() {
    let of = |text: &str| complaints(&[Source::new("reactor/part.rs", text)], "Part", "reactor/part.rs").join("\n");
    let closed =
        "pub(super) struct Part<T> { one: Cell<u8>, two: Vec<(T, fn())> }\nimpl<T> Part<T> { pub(super) fn f() {} }";
    assert_eq!(of(closed), "");
    assert_eq!(of("struct Part(u8);\npub struct Other { pub one: u8 }"), "");
    assert_eq!(of("struct Part { one: u8 }\n#[cfg(test)]\nmod tests {}"), "");
    for visibility in ["pub", "pub(super)", "pub(crate)", "pub(in crate::reactor)"] {
        let wrong = of(&format!("struct Part {{\n    one: u8,\n    {visibility} two: u8,\n}}"));
        assert_eq!(wrong, "reactor/part.rs:3: a field of Part is open to others");
        assert!(of(&format!("struct Part(u8, {visibility} u8);")).contains("is open to others"));
    }
    assert!(of("struct Part { one: u8 } mod inner {}").contains("a module in it"));
    assert!(of("struct Parts { one: u8 }").contains("it does not define Part"));
    assert!(complaints(&[], "Part", "reactor/part.rs")[0].contains("no such file"));
}
