//! The report: Markdown tables and charts, made from the raw figures.

mod children;
mod cores;
mod datagrams;
mod hyper;
mod pairs;
mod pictures;
mod round_trips;
mod tables;
mod targets;
mod twisted;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::Result;
use crate::results::Results;

pub use self::children::scenario as children_scenario;
pub use self::datagrams::scenario as datagram_scenario;

/// Greatest width of a line of prose in the report.
const COLUMNS: usize = 100;

/// Writes `report.md` and the charts into the folder.
///
/// # Errors
/// Fails if a file cannot be read or written.
pub fn write(results: &Results, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut shown = Vec::new();
    for (name, picture) in pictures::all(results) {
        let path = folder.join(format!("{name}.svg"));
        match picture {
            Some(picture) => {
                fs::write(path, picture)?;
                shown.push(name);
            }
            // An older chart would belong to another run.
            None if path.exists() => fs::remove_file(path)?,
            None => {}
        }
    }
    let mut text = tables::head(results);
    text += &targets::table(results);
    text += &notes(folder)?;
    text += &tables::all(results, &shown);
    text += &hyper::section(results);
    text += &cores::section(results);
    text += &datagrams::section(results);
    text += &children::section(results);
    text += &twisted::section(results);
    text += &round_trips::section(results);
    Ok(fs::write(folder.join("report.md"), wrapped(&text))?)
}

/// Wraps paragraphs of prose at [`COLUMNS`]. Headings, tables, lists and pictures stay unchanged.
fn wrapped(text: &str) -> String {
    let wrap = |block: &str| {
        if block.starts_with(['#', '|', '-', '!']) {
            return block.to_owned();
        }
        let mut lines = vec![String::new()];
        for word in block.split_whitespace() {
            match lines.last_mut() {
                Some(line) if line.is_empty() => line.push_str(word),
                Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines.join("\n")
    };
    text.trim_end().split("\n\n").map(wrap).collect::<Vec<_>>().join("\n\n") + "\n"
}

/// Returns the handwritten reasons for missed targets: `notes.md` in the folder, if it exists.
fn notes(folder: &Path) -> Result<String> {
    let path = folder.join("notes.md");
    match fs::read_to_string(&path) {
        Ok(notes) => Ok(format!("## Missed targets, and reasons\n\n{}\n\n", notes.trim_end())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paragraphs of prose are wrapped. Tables, headings and lists are not.
    #[test]
    fn prose_is_wrapped() {
        let prose = ["word"; 21].join(" ");
        let first = ["word"; 20].join(" ");
        assert_eq!(wrapped(&format!("# {prose}\n\n{prose}\n\n- {prose}\n")), {
            format!("# {prose}\n\n{first}\nword\n\n- {prose}\n")
        });
        assert_eq!(wrapped(&format!("| {prose} |\n|---|\n")), format!("| {prose} |\n|---|\n"));
    }
}
