//! Certificates, keys and roots from files. Only this module and the reactor read files: this one
//! when a configuration is made, and when the files of a server's certificates have changed
//! ([`Watched`]).

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};

use super::identity::{chain, private_key, signing_key};
use super::roots::Collected;
use super::server::Names;
use super::{ConfigError, Identity, ServerTls, ServerTlsBuilder, TrustRoots};
use crate::log::error;

impl Identity {
    /// Reads an identity from two PEM files, which may be the same file; see
    /// [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// A file cannot be read, or the errors of `from_pem`.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_pem_files_with(certificates, None::<&Path>, key)
    }

    /// Reads an identity whose intermediate certificates may be in a file of their own.
    pub(crate) fn from_pem_files_with(
        certificates: impl AsRef<Path>,
        more: Option<impl AsRef<Path>>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ConfigError> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let key_pem = read(key)?;
        let mut all = chain(&read(certificates)?, &certificates.display().to_string())?;
        if let Some(more) = more {
            all.extend(chain(&read(more.as_ref())?, &more.as_ref().display().to_string())?);
        }
        let key = private_key(&key_pem, &key.display().to_string()).map_err(|error| error.of_key(&all))?;
        Self::of(all, key)
    }
}

impl TrustRoots {
    /// Reads the roots that the operating system trusts (Twisted: `platformTrust`). The environment
    /// variables `SSL_CERT_FILE` and `SSL_CERT_DIR` override them, if set. Each call reads them
    /// again, so keep the result.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] if there are none.
    pub fn platform() -> Result<Self, ConfigError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = Collected::new("the platform's store");
        if let Some(error) = found.errors.first() {
            roots.note(error.to_string());
        }
        found.certs.into_iter().for_each(|certificate| roots.add_if_good(certificate));
        roots.finish()
    }

    /// Reads roots from a PEM file; see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// The file cannot be read, or the errors of `from_pem`.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let (path, name) = (path.as_ref(), path.as_ref().display().to_string());
        let mut roots = Collected::new(&*name);
        roots.add_pem(&read(path)?, &name)?;
        roots.finish()
    }

    /// Reads roots from all files of a folder whose names end in `.pem` (Twisted: `trustRoots=` and
    /// `caCertsDir=` of descriptions).
    ///
    /// # Errors
    /// The folder or a file cannot be read, or the errors of [`from_pem`](Self::from_pem).
    pub fn from_directory(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let mut roots = Collected::new(path.display().to_string());
        for file in entries(path)?.into_iter().filter(|file| is_pem(file)) {
            roots.add_pem(&read(&file)?, &file.display().to_string())?;
        }
        roots.finish()
    }
}

impl ServerTls {
    /// Builds a configuration with [`ServerTlsBuilder::build_from_directory`] and the default
    /// settings (Twisted: the server endpoint `tls:`).
    ///
    /// # Errors
    /// As for `build_from_directory`.
    pub fn from_directory(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::builder().build_from_directory(path)
    }
}

impl ServerTlsBuilder {
    /// Builds the configuration with all certificates and keys in the `.pem` files of a folder and
    /// its subfolders. Each key is used with the certificate it belongs to. They replace the
    /// certificates added by [`identity`](Self::identity).
    ///
    /// The files are checked for changes on the reactor's thread: at the first handshake after 60
    /// s, at a handshake for a name without a certificate, and by [`ServerTls::reload`]. They are
    /// read only if one has changed. Established connections keep their certificates.
    ///
    /// - A replaced certificate file replaces the certificate, and a removed one removes it.
    /// - If a certificate file cannot be read, is incomplete, or does not match any key, the old
    ///   certificate stays. All old certificates stay if none would be left. The log reports it
    ///   once.
    ///
    /// # Errors
    /// The folder or a file cannot be read, or there is no certificate with its key.
    pub fn build_from_directory(self, path: impl AsRef<Path>) -> Result<ServerTls, ConfigError> {
        self.build_from(FilesSource::Folder(path.as_ref().to_owned()))
    }

    /// Builds the configuration with one certificate from files, which are checked for changes in
    /// the same way.
    pub(crate) fn build_from_files(
        self,
        certificates: impl AsRef<Path>,
        more: Option<impl AsRef<Path>>,
        key: impl AsRef<Path>,
    ) -> Result<ServerTls, ConfigError> {
        let [certificates, key] = [certificates.as_ref(), key.as_ref()].map(Path::to_owned);
        let more = more.map(|more| more.as_ref().to_owned());
        self.build_from(FilesSource::Files { certificates, more, key })
    }

    fn build_from(self, source: FilesSource) -> Result<ServerTls, ConfigError> {
        let watched = Arc::new(Watched::open(source, SystemTime::now())?);
        self.build_with(Arc::clone(&watched) as _, Some(watched))
    }
}

/// Certificates that are read again when their files have changed.
#[derive(Debug)]
pub(super) struct Watched {
    source: FilesSource,
    state: Mutex<FilesState>,
}

/// Source of certificates.
#[derive(Debug)]
enum FilesSource {
    Folder(PathBuf),
    Files { certificates: PathBuf, more: Option<PathBuf>, key: PathBuf },
}

#[derive(Debug)]
struct FilesState {
    names: Names,
    held: Vec<HeldIdentity>,
    /// The files at the last check. `None`: they have to be read, changed or not.
    seen: Option<Vec<FileStamp>>,
    checked_at: SystemTime,
    /// Errors that were logged at the last check.
    logged: Vec<String>,
}

/// An identity, and the file of its certificate.
#[derive(Debug, Clone)]
struct HeldIdentity {
    file: PathBuf,
    identity: Identity,
}

/// A file, and the attributes that differ once it has changed: its identity, its time of change
/// (ctime), and its length. That time also changes with the permissions, and no program can set it.
type FileStamp = (PathBuf, Option<([u64; 2], [i64; 2], u64)>);

/// Identities that were read from files, and errors.
type FilesRead = (Vec<HeldIdentity>, Vec<ConfigError>);

impl Watched {
    fn open(source: FilesSource, now: SystemTime) -> Result<Self, ConfigError> {
        let seen = source.list()?;
        let (held, mut errors) = source.read(&seen, &[]);
        if let Some(unreadable) = errors.iter().position(|error| matches!(error, ConfigError::Io { .. })) {
            return Err(errors.swap_remove(unreadable));
        }
        let Some(names) = names_of(&held) else {
            return Err(errors.into_iter().next().unwrap_or_else(|| source.has_none()));
        };
        let mut state = FilesState { names, held, seen: Some(seen), checked_at: now, logged: Vec::new() };
        state.log_errors(&source, errors);
        Ok(Self { source, state: Mutex::new(state) })
    }

    /// Reads the files again, changed or not.
    pub(super) fn reload(&self) -> Result<(), ConfigError> {
        let mut state = self.state();
        state.seen = None;
        state.refresh(&self.source, SystemTime::now()).map_or(Ok(()), Err)
    }

    /// Returns the certificate for a client that asks for this name, or for none.
    fn find(&self, name: Option<&str>, now: SystemTime) -> Arc<CertifiedKey> {
        let mut state = self.state();
        // A clock that was set back also makes a check due.
        let is_due = now.duration_since(state.checked_at).map_or(true, |since| since >= CHECK_INTERVAL);
        let is_unknown = |state: &FilesState| name.is_some_and(|name| state.names.find(name).is_none());
        if is_due || (matches!(self.source, FilesSource::Folder(_)) && is_unknown(&state)) {
            // The error was logged, and the old certificates stay in use.
            let _ = state.refresh(&self.source, now);
        }
        name.and_then(|name| state.names.find(name)).unwrap_or_else(|| state.names.first())
    }

    fn state(&self) -> MutexGuard<'_, FilesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Watched {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The TLS library has put the name into lower case.
        Some(self.find(hello.server_name(), SystemTime::now()))
    }
}

impl FilesState {
    /// Reads the files again if one has changed. Returns the first error.
    fn refresh(&mut self, source: &FilesSource, now: SystemTime) -> Option<ConfigError> {
        self.checked_at = now;
        let errors = match source.list() {
            Ok(seen) if self.seen.as_ref() == Some(&seen) => return None,
            Ok(seen) => {
                let (held, mut errors) = source.read(&seen, &self.held);
                self.seen = Some(seen);
                match names_of(&held) {
                    Some(names) => (self.names, self.held) = (names, held),
                    None => errors.push(source.has_none()),
                }
                errors
            }
            Err(error) => {
                // They are read again as soon as they can be listed again.
                self.seen = None;
                vec![error]
            }
        };
        self.log_errors(source, errors)
    }

    /// Logs errors that the last check did not log. Returns the first error.
    fn log_errors(&mut self, source: &FilesSource, errors: Vec<ConfigError>) -> Option<ConfigError> {
        let before = mem::replace(&mut self.logged, errors.iter().map(ConfigError::with_cause).collect());
        for error in self.logged.iter().filter(|error| !before.contains(error)) {
            error!(?source, %error, "certificates cannot be used; previous ones, if any, stay in use");
        }
        errors.into_iter().next()
    }
}

impl FilesSource {
    /// Lists the existing files.
    fn list(&self) -> Result<Vec<FileStamp>, ConfigError> {
        match self {
            Self::Folder(path) => files_below(path),
            Self::Files { certificates, more, key } => {
                Ok([Some(certificates), more.as_ref(), Some(key)].into_iter().flatten().cloned().map(stamp).collect())
            }
        }
    }

    /// Reads the files. An identity that cannot be read any more is taken from `old`.
    fn read(&self, seen: &[FileStamp], old: &[HeldIdentity]) -> FilesRead {
        match self {
            Self::Folder(_) => read_folder(seen, old),
            Self::Files { certificates, more, key } => {
                match Identity::from_pem_files_with(certificates, more.as_ref(), key) {
                    Ok(identity) => (vec![HeldIdentity { file: certificates.clone(), identity }], Vec::new()),
                    Err(error) => (old.to_vec(), vec![error]),
                }
            }
        }
    }

    fn has_none(&self) -> ConfigError {
        let source_name = match self {
            Self::Folder(path) => format!("the .pem files of {}", path.display()),
            Self::Files { certificates, .. } => certificates.display().to_string(),
        };
        ConfigError::Missing { what: "certificate with its private key", source_name }
    }
}

/// Reads the files of a folder, each of which may hold certificates, keys, or both.
fn read_folder(seen: &[FileStamp], old: &[HeldIdentity]) -> FilesRead {
    let (mut texts, mut keys, mut errors) = (Vec::new(), Keys::default(), Vec::new());
    for (file, ..) in seen {
        match read(file) {
            Ok(pem) => {
                keys.add(&pem, file, &mut errors);
                texts.push((file, Some(pem)));
            }
            Err(error) => {
                errors.push(error);
                texts.push((file, None));
            }
        }
    }
    let mut held = Vec::new();
    for (file, pem) in texts {
        let before = old.iter().find(|held| held.file == *file);
        match pem.map_or(Ok(None), |pem| identity_in(&pem, file, &keys, before.is_some())) {
            Ok(Some(identity)) => held.push(HeldIdentity { file: file.clone(), identity }),
            Ok(None) => held.extend(before.cloned()),
            Err(error) => {
                errors.push(error);
                held.extend(before.cloned());
            }
        }
    }
    (held, errors)
}

/// Returns the identity whose certificate is in a file. `None` if the file holds keys only, or the
/// certificate of an authority, which has no key here. For a file that held an identity before,
/// either is an error.
fn identity_in(pem: &[u8], file: &Path, keys: &Keys, was_one: bool) -> Result<Option<Identity>, ConfigError> {
    let chain = match chain(pem, &file.display().to_string()) {
        Ok(chain) => chain,
        Err(_) if !was_one && !String::from_utf8_lossy(pem).contains(CERTIFICATE) => return Ok(None),
        Err(error) => return Err(error),
    };
    match keys.of(&chain) {
        Some(key) => Ok(Some(Identity::with_key(chain, key))),
        None if was_one => Err(ConfigError::NoKey { path: file.to_owned() }),
        None => Ok(None),
    }
}

/// Private keys, indexed by their public keys.
#[derive(Default)]
struct Keys(HashMap<Vec<u8>, Arc<dyn SigningKey>>);

impl Keys {
    fn add(&mut self, pem: &[u8], file: &Path, errors: &mut Vec<ConfigError>) {
        for key in PrivateKeyDer::pem_slice_iter(pem).filter_map(Result::ok) {
            match signing_key(key, &file.display().to_string()) {
                Ok(key) => self.0.extend(key.public_key().map(|public| (public.to_vec(), Arc::clone(&key)))),
                Err(error) => errors.push(error),
            }
        }
    }

    fn of(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<dyn SigningKey>> {
        let certificate = webpki::EndEntityCert::try_from(chain.first()?).ok()?;
        self.0.get(&*certificate.subject_public_key_info()).cloned()
    }
}

fn names_of(held: &[HeldIdentity]) -> Option<Names> {
    Names::new(&held.iter().map(|held| held.identity.clone()).collect::<Vec<_>>())
}

/// The start of a certificate in PEM.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Interval after which the files of served certificates are checked again. A minute is arbitrary:
/// soon enough for a certificate that was renewed days before the old one expires, and rare enough
/// that checking ten thousand files costs nothing.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|source| unreadable(path, source))
}

/// Returns the entries of a folder, sorted.
fn entries(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let listed =
        fs::read_dir(path).and_then(|found| found.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = listed.map_err(|source| unreadable(path, source))?;
    entries.sort();
    Ok(entries)
}

/// Returns the `.pem` files of a folder and its subfolders.
fn files_below(path: &Path) -> Result<Vec<FileStamp>, ConfigError> {
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            // Links to files are followed. Links to folders are not: the folder might be a parent.
            if fs::symlink_metadata(&entry).is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry);
            } else if is_pem(&entry) {
                found.push(stamp(entry));
            }
        }
    }
    Ok(found)
}

/// Returns the current attributes of a file, behind all links. For an inaccessible file they are
/// `None`; reading it reports the reason.
fn stamp(path: PathBuf) -> FileStamp {
    let file = fs::metadata(&path).ok();
    let stamp = file.map(|file| ([file.dev(), file.ino()], [file.ctime(), file.ctime_nsec()], file.len()));
    (path, stamp)
}

fn is_pem(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pem")
}

fn unreadable(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Io { path: path.to_owned(), source }
}
