//! The report: tables in Markdown, and pictures, from the raw figures.

mod pictures;
mod round_trips;
mod tables;
mod targets;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::Result;
use crate::results::Results;

/// Writes `report.md` and the pictures into the folder.
///
/// # Errors
/// What the system says.
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
            // An older one would be of another run.
            None if path.exists() => fs::remove_file(path)?,
            None => {}
        }
    }
    let mut text = tables::head(results);
    text += &targets::table(results);
    text += &notes(folder)?;
    text += &tables::all(results, &shown);
    text += &round_trips::section(results);
    Ok(fs::write(folder.join("report.md"), text)?)
}

/// What was written by hand of the targets that were missed: `notes.md` in the folder, if it is there.
fn notes(folder: &Path) -> Result<String> {
    let path = folder.join("notes.md");
    match fs::read_to_string(&path) {
        Ok(notes) => Ok(format!("## What was missed, and why\n\n{}\n\n", notes.trim_end())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}
