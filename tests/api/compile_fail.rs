//! Typical mistakes, and whether the compiler's message names the remedy. Each program under
//! `compile_fail/` must be refused; its lines `//~ ..` are texts of ours that the message has to
//! contain, so that they hold for every version of the compiler. `control.rs` compiles.
//!
//! The programs are compiled against the library that this test is linked with. A crate for such
//! tests would build all dependencies a second time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::own_process;

#[test]
fn messages_name_the_remedy() {
    own_process!();
    let Some(compiler) = Compiler::find() else {
        println!("skipped: the library that this test is linked with is not beside it");
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/compile_fail");
    let control = compiler.compile(&folder.join("control.rs"));
    assert!(control.status.success(), "{}", String::from_utf8_lossy(&control.stderr));

    let mut programs: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    programs.retain(|path| !path.ends_with("control.rs"));
    programs.sort();
    assert!(programs.len() >= 20, "{} programs in {}", programs.len(), folder.display());
    let faults: Vec<String> = programs.iter().filter_map(|program| check(&compiler, program).err()).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Compiles a program that must be refused, with a message that contains what the program expects.
fn check(compiler: &Compiler, program: &Path) -> Result<(), String> {
    let output = compiler.compile(program);
    let (name, message) = (program.display(), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        return Err(format!("{name} compiles: {message}"));
    }
    let source = fs::read_to_string(program).unwrap();
    let mut expected = source.lines().filter_map(|line| line.strip_prefix("//~ ")).peekable();
    if expected.peek().is_none() {
        return Err(format!("{name} expects nothing"));
    }
    expected
        .find(|text| !message.contains(text))
        .map_or(Ok(()), |text| Err(format!("{name}: no {text:?} in\n{message}")))
}

struct Compiler {
    program: PathBuf,
    dependencies: PathBuf,
    library: PathBuf,
}

impl Compiler {
    /// The compiler beside cargo, and the newest library beside this test.
    fn find() -> Option<Self> {
        let beside_cargo = std::env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
        let program = beside_cargo.filter(|path| path.exists()).unwrap_or_else(|| "rustc".into());
        let dependencies = std::env::current_exe().ok()?.parent()?.to_owned();
        let library = fs::read_dir(&dependencies)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("libropewalk-") && name.ends_with(".rlib")
            })
            .max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())?;
        Some(Self { program, dependencies, library })
    }

    fn compile(&self, source: &Path) -> Output {
        let mut library = std::ffi::OsString::from("ropewalk=");
        library.push(&self.library);
        Command::new(&self.program)
            .args(["--edition=2024", "--crate-type=bin", "--emit=metadata", "-Adead_code"])
            .args(["--out-dir", env!("CARGO_TARGET_TMPDIR")])
            .arg("-L")
            .arg(format!("dependency={}", self.dependencies.display()))
            .arg("--extern")
            .arg(library)
            .arg(source)
            .output()
            .expect("the compiler that compiled this runs")
    }
}
