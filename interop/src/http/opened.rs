//! Paths of requests, and the files that they name. A file is opened below the root by the kernel
//! itself (`openat2` with `RESOLVE_BENEATH`), so that no symbolic link leads out of the root, even
//! one that is made meanwhile. An absolute link is refused too, wherever it leads.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Number of attempts to open a file while others rename folders on its path. Arbitrary.
const ATTEMPTS: usize = 8;

/// The file, or the folder, that a path names.
pub(super) enum Opened {
    File(OpenedFile),
    /// A folder, and the path did not end with a slash.
    Folder,
}

/// A regular file that is open.
pub(super) struct OpenedFile {
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) modified: SystemTime,
    pub(super) media_type: &'static str,
}

impl Opened {
    /// Opens the file of a path, or the index of a folder whose path ends with a slash or is empty.
    /// Blocks as the disk does.
    ///
    /// # Errors
    /// An error of the system. `EXDEV` is a path that leaves the root, and `ENOENT` one that names
    /// neither a file nor a folder.
    pub(super) fn open(root: &OwnedFd, path: &str) -> io::Result<Self> {
        let is_folder = path.is_empty() || path.ends_with('/');
        let path = if is_folder { format!("{path}index.html") } else { path.to_owned() };
        let file = File::from(open_beneath(root, &path)?);
        let facts = file.metadata()?;
        if facts.is_dir() && !is_folder {
            return Ok(Self::Folder);
        }
        if !facts.is_file() {
            return Err(Errno::NOENT.into());
        }
        let modified = facts.modified()?;
        Ok(Self::File(OpenedFile { file, len: facts.len(), modified, media_type: media_type(&path) }))
    }
}

/// Opens the root of all files.
///
/// # Errors
/// An error of the system, such as `ENOSYS` by one that can't keep paths below a root.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    openat2(&root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH)?;
    Ok(root)
}

fn open_beneath(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    // An open of a pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    for _ in 1..ATTEMPTS {
        match openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// Returns the path below the root that the path of a URI names, with its slash at the end, or
/// `None` for a path with `..`, a slash too many at the start, or malformed escapes.
pub(super) fn relative_path(uri: &str) -> Option<String> {
    let path = decode(uri.strip_prefix('/')?)?;
    let is_below = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
    is_below.then_some(path)
}

/// Decodes `%41` and its like. `None` for malformed ones, and for text that is not UTF-8 or has
/// NUL.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut decoded) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().filter(|path| !path.contains('\0'))
}

/// Returns the media type of a file, by the ending of its name.
fn media_type(path: &str) -> &'static str {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" | "log" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "json" => "application/json",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff2" => "font/woff2",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_root() {
        for (uri, path) in
            [("/", ""), ("/a/b.txt", "a/b.txt"), ("/a%20b/", "a b/"), ("/.../a", ".../a"), ("/a//b", "a//b")]
        {
            assert_eq!(relative_path(uri), Some(path.into()), "{uri}");
        }
        for uri in [
            "/..",
            "/../a",
            "/a/%2e%2e/b",
            "/a/..%2fb",
            "/%2Fetc/passwd",
            "//etc/passwd",
            "/./a",
            "/a%00",
            "/%4",
            "/%xx",
            "/%",
            "/%ff",
            "*",
            "",
            "a",
        ] {
            assert_eq!(relative_path(uri), None, "{uri}");
        }
    }

    #[test]
    fn media_types_are_found_by_the_ending() {
        for (path, name) in [
            ("a/b.TXT", "text/plain; charset=utf-8"),
            ("a.b/c", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("a.tar.gz", "application/gzip"),
        ] {
            assert_eq!(media_type(path), name, "{path}");
        }
    }
}
