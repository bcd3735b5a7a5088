//! [`ProgramImage`]: the arguments of `execve`, made before a child exists.
//!
//! The search for a program without a slash is that of `execvp`, with two differences. The list of
//! places is made here, because a child may not allocate. A script without a first line that names
//! its interpreter is an error (`ENOEXEC`), as in Twisted, and is not handed to a shell.

use std::ffi::{CString, NulError, OsStr, OsString};
use std::iter;
use std::os::raw::c_char;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

use crate::process::Settings;

/// The directories that are searched if no environment has a `PATH`, as glibc does.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

const PATH: &str = "PATH";

/// The texts that `execve` takes.
pub(super) struct ProgramImage {
    /// The files to try, in this order.
    pub(super) files: Vec<CString>,
    pub(super) args: TextList,
    pub(super) env: TextList,
}

impl ProgramImage {
    /// # Errors
    /// A text has a byte 0.
    pub(super) fn new(settings: &Settings) -> Result<Self, NulError> {
        let program = settings.program.as_bytes();
        let path = match settings.env.get(OsStr::new(PATH)) {
            Some(Some(path)) => Some(path.clone()),
            _ => std::env::var_os(PATH),
        };
        let path = path.as_ref().map_or(DEFAULT_PATH, |path| path.as_bytes());
        let name = settings.arg0.as_ref().unwrap_or(&settings.program);
        let args = iter::once(name).chain(&settings.args).map(|text| text.as_bytes().to_vec());
        Ok(Self {
            files: files(program, path).into_iter().map(CString::new).collect::<Result<_, _>>()?,
            args: TextList::new(args)?,
            env: TextList::new(environment(settings).into_iter().map(OsString::into_vec))?,
        })
    }
}

/// A list of texts, as C programs take it: pointers, and a null pointer.
pub(super) struct TextList {
    /// The texts behind the pointers, which stay where they are when this moves.
    _texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl TextList {
    fn new(texts: impl Iterator<Item = Vec<u8>>) -> Result<Self, NulError> {
        let texts: Vec<CString> = texts.map(CString::new).collect::<Result<_, _>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { _texts: texts, pointers })
    }

    /// Returns the pointers, which live as long as the list.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Returns the files that a program may be, in the order of the search.
fn files(program: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let join = |directory: &[u8]| match directory {
        // The working directory.
        b"" => program.to_vec(),
        _ => [directory, b"/", program].concat(),
    };
    path.split(|&byte| byte == b':').map(join).collect()
}

/// Returns the variables of the child, as `NAME=VALUE`.
fn environment(settings: &Settings) -> Vec<OsString> {
    let variable = |name: &OsStr, value: &OsStr| {
        let mut text = name.to_owned();
        text.push("=");
        text.push(value);
        text
    };
    let mut variables = Vec::new();
    if !settings.is_env_cleared {
        let inherited = std::env::vars_os().filter(|(name, _)| !settings.env.contains_key(name));
        variables.extend(inherited.map(|(name, value)| variable(&name, &value)));
    }
    for (name, value) in &settings.env {
        variables.extend(value.as_ref().map(|value| variable(name, value)));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Command;

    fn searched(program: &str, path: &str) -> Vec<String> {
        let files = files(program.as_bytes(), path.as_bytes());
        files.into_iter().map(|file| String::from_utf8(file).unwrap()).collect()
    }

    /// An empty directory is the working directory, and a slash ends the search before it begins.
    #[test]
    fn a_program_is_searched_for_as_by_a_shell() {
        assert_eq!(searched("ls", "/bin:/usr/bin"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(searched("ls", ":/bin:"), ["ls", "/bin/ls", "ls"]);
        assert_eq!(searched("ls", ""), ["ls"]);
        assert_eq!(searched("./ls", "/bin"), ["./ls"]);
        assert_eq!(searched("", "/bin"), [""; 0]);
    }

    /// The `PATH` is the child's if the command sets one, and otherwise this program's.
    #[test]
    fn the_path_is_the_childs_or_this_programs() {
        let own = std::env::var_os(PATH).map_or(2, |path| path.as_bytes().split(|&byte| byte == b':').count());
        let mut command = Command::new("ls");
        assert_eq!(ProgramImage::new(command.env_clear().settings()).unwrap().files.len(), own);
        command.env("PATH", "/a:/b:/c");
        let image = ProgramImage::new(command.settings()).unwrap();
        assert_eq!(image.files, [c"/a/ls", c"/b/ls", c"/c/ls"].map(CString::from));
        command.env_remove("PATH");
        assert_eq!(ProgramImage::new(command.settings()).unwrap().files.len(), own);
    }

    #[test]
    fn changes_replace_variables_and_are_not_added_twice() {
        let (name, _) = std::env::vars_os().next().expect("this program has an environment");
        let mut command = Command::new("env");
        command.env(&name, "changed");
        let variables = environment(command.settings());
        let mut named = name.clone();
        named.push("=");
        let of_name: Vec<_> = variables.iter().filter(|text| text.as_bytes().starts_with(named.as_bytes())).collect();
        named.push("changed");
        assert_eq!(of_name, [&named]);
        assert_eq!(environment(command.env_clear().env("A", "1").env_remove("B").settings()), ["A=1"]);
    }

    #[test]
    fn a_byte_0_is_refused_in_each_text() {
        for command in [
            Command::new("a\0b"),
            Command::new("true").arg("a\0b").clone(),
            Command::new("true").arg0("a\0b").clone(),
            Command::new("true").env("A", "a\0b").clone(),
            Command::new("true").env("a\0b", "").clone(),
        ] {
            assert!(ProgramImage::new(command.settings()).is_err());
        }
    }

    /// The list ends with a null pointer, and its pointers survive a move.
    #[test]
    fn a_list_ends_with_a_null_pointer() {
        let list = TextList::new([b"a".to_vec(), b"b".to_vec()].into_iter()).unwrap();
        let moved = Box::new(list);
        assert_eq!(moved.pointers.len(), 3);
        assert!(moved.pointers[2].is_null());
        assert_eq!(moved.pointers[1], moved._texts[1].as_ptr());
    }
}
