//! The pages of the guide: each is in its table of contents, and the code of each runs in a test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The languages of blocks that are no programs: output, descriptions, files of other programs. The
/// commands of the tutorial are run by its own test, and Python's programs by those of this file.
const OTHER_LANGUAGES: [&str; 6] = ["text", "sh", "ini", "toml", "console", "python"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the guide, from its folder.
fn pages() -> BTreeSet<String> {
    fn walk(folder: PathBuf, found: &mut BTreeSet<String>, top: &Path) {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                walk(entry, found, top);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                found.insert(entry.strip_prefix(top).expect("a page below it").to_str().expect("text").to_owned());
            }
        }
    }
    let (top, mut found) = (root().join("docs/guide/src"), BTreeSet::new());
    walk(top.clone(), &mut found, &top);
    assert!(found.remove("SUMMARY.md") && !found.is_empty());
    found
}

/// The first lines of a page's blocks of code, and the blocks.
pub(crate) fn blocks(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split("\n```").collect();
    assert!(parts.len() % 2 == 1, "a block without an end");
    parts.iter().skip(1).step_by(2).map(|block| block.split_once('\n').unwrap_or((block, ""))).collect()
}

/// A page that is not in the table of contents is in no book.
#[test]
fn the_table_of_contents_has_every_page_once() {
    let summary = read("docs/guide/src/SUMMARY.md");
    let linked: Vec<&str> =
        summary.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect();
    let once: BTreeSet<String> =
        linked.iter().filter(|link| !link.starts_with("../")).map(|&link| link.to_owned()).collect();
    assert_eq!(once.len(), linked.len(), "a page stands in it twice, or is a page of another folder");
    assert_eq!(once, pages());
}

/// Every program of a page is compiled as a test of the documentation. A piece of a program is
/// marked `rust,ignore`: it stands in a program of the repository to which the page links.
#[test]
fn the_code_of_every_page_runs_in_a_test() {
    let (compiled, mut pieces) = (read("src/guides.rs"), 0);
    for page in pages() {
        let text = read(format!("docs/guide/src/{page}"));
        let is_compiled = compiled.contains(&format!("\"../docs/guide/src/{page}\""));
        for (language, block) in blocks(&text) {
            if language == "rust,ignore" {
                assert!(
                    programs(&text).any(|program| program.contains(block)),
                    "{page} links to no program with\n{block}"
                );
                pieces += 1;
                continue;
            }
            let is_rust = language.is_empty() || language.split(',').next() == Some("rust");
            assert!(is_rust || OTHER_LANGUAGES.contains(&language), "{page}: {language:?}\n{block}");
            assert!(!language.contains("ignore") && (!is_rust || is_compiled), "no test compiles, in {page}:\n{block}");
        }
    }
    assert!(pieces > 10, "{pieces} pieces");
}

/// The programs in Rust to which a page links.
fn programs(page: &str) -> impl Iterator<Item = String> {
    let links = page.split("](../").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    let paths = links.filter(|link| link.ends_with(".rs")).map(|link| link.trim_start_matches("../").to_owned());
    paths.map(read)
}

/// The programs of the tutorial fit a screen.
#[test]
fn a_step_of_the_tutorial_has_sixty_lines_at_most() {
    for name in ["echo", "chat", "client", "service"] {
        let lines = read(format!("examples/tutorial_{name}.rs")).lines().count();
        assert!(lines <= 60, "tutorial_{name}.rs has {lines}");
    }
}
