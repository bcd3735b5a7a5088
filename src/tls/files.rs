//! Certificates, keys and roots from files. This is the one place outside the reactor's room that reads any: when a configuration is
//! made, and, for a [folder](ServerTls::from_directory) of certificates, when somebody asks for a name that is not known.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::identity::{chain, private_key};
use super::roots::Collected;
use super::server::Names;
use super::{ConfigError, Identity, ServerTls, ServerTlsBuilder, TrustRoots};

impl Identity {
    /// [`from_pem`](Self::from_pem) from files, which may be the same.
    ///
    /// # Errors
    /// A file can't be read, or what `from_pem` says.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_pem_files_with(certificates, None::<&Path>, key)
    }

    /// The same, with certificates that vouch for it in a file of their own.
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
        Self::of(all, private_key(&key_pem, &key.display().to_string())?)
    }
}

impl TrustRoots {
    /// Those that the operating system trusts (Twisted: `platformTrust`), or, where they are set, those of the environment's
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`. They are read anew each time: keep what you have.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`]: there are none.
    pub fn platform() -> Result<Self, ConfigError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = Collected::new("the platform's store");
        if let Some(error) = found.errors.first() {
            roots.note(error.to_string());
        }
        found.certs.into_iter().for_each(|certificate| roots.add_if_good(certificate));
        roots.finish()
    }

    /// [`from_pem`](Self::from_pem) from a file.
    ///
    /// # Errors
    /// It can't be read, or what `from_pem` says.
    pub fn from_pem_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let (path, name) = (path.as_ref(), path.as_ref().display().to_string());
        let mut roots = Collected::new(&*name);
        roots.add_pem(&read(path)?, &name)?;
        roots.finish()
    }

    /// From all files of a folder whose names end in `.pem` (Twisted: `trustRoots=` and `caCertsDir=` of descriptions).
    ///
    /// # Errors
    /// The folder or a file can't be read, or what [`from_pem`](Self::from_pem) says.
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
    /// With all certificates and keys in the `.pem` files of a folder and those below it, each key with the certificate that it belongs
    /// to (Twisted: the server endpoint `tls:`). When a client asks for a name that none of them is for, and a file has changed since
    /// they were read, they are read again, on the reactor's thread; if that fails, the log says so and the old ones stay.
    ///
    /// # Errors
    /// The folder or a file can't be read; there is no certificate whose key is there.
    pub fn from_directory(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        ServerTlsBuilder::default().build_with(Arc::new(Folder::read(path.as_ref())?))
    }
}

/// The certificates of a folder.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    read: Mutex<State>,
}

#[derive(Debug)]
struct State {
    names: Names,
    /// The files that were there, and what would be different if one had changed.
    seen: Vec<Seen>,
}

type Seen = (PathBuf, Option<SystemTime>, u64);

impl Folder {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let state = State::read(path, files_below(path)?)?;
        Ok(Self { path: path.to_owned(), read: Mutex::new(state) })
    }

    /// Reads again if anything has changed.
    fn refresh(&self, state: &mut State) {
        let anew = files_below(&self.path)
            .and_then(|seen| if seen == state.seen { Ok(None) } else { State::read(&self.path, seen).map(Some) });
        match anew {
            Ok(None) => {}
            Ok(Some(read)) => *state = read,
            Err(error) => {
                tracing::error!(folder = ?self.path, %error, "certificates can't be read again; the old ones stay");
            }
        }
    }
}

impl ResolvesServerCert for Folder {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut state = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = hello.server_name() else { return Some(state.names.first()) };
        if let Some(found) = state.names.find(name) {
            return Some(found);
        }
        self.refresh(&mut state);
        state.names.find(name).or_else(|| Some(state.names.first()))
    }
}

impl State {
    fn read(path: &Path, seen: Vec<Seen>) -> Result<Self, ConfigError> {
        let (mut chains, mut keys) = (Vec::new(), Vec::new());
        for (file, ..) in &seen {
            let pem = read(file)?;
            let name = file.display().to_string();
            // A file may hold either, or both.
            chains.extend(chain(&pem, &name));
            keys.extend(PrivateKeyDer::pem_slice_iter(&pem).filter_map(Result::ok));
        }
        // Of the others there is no key here: they are authorities', or the key is missing.
        let identities: Vec<Identity> = chains
            .iter()
            .filter_map(|chain| keys.iter().find_map(|key| Identity::of(chain.clone(), key.clone_key()).ok()))
            .collect();
        let missing = || ConfigError::Missing {
            what: "certificate with its private key",
            source_name: format!("the .pem files of {}", path.display()),
        };
        Ok(Self { names: Names::new(&identities).ok_or_else(missing)?, seen })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|source| unreadable(path, source))
}

/// What is in a folder, in order.
fn entries(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let listed =
        fs::read_dir(path).and_then(|found| found.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut entries = listed.map_err(|source| unreadable(path, source))?;
    entries.sort();
    Ok(entries)
}

/// The `.pem` files of a folder and those below it.
fn files_below(path: &Path) -> Result<Vec<Seen>, ConfigError> {
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            // Links are followed to files, but not to folders, which might be one above.
            let kind = fs::symlink_metadata(&entry).map_err(|source| unreadable(&entry, source))?;
            if kind.is_dir() {
                folders.push(entry);
            } else if is_pem(&entry) {
                let file = fs::metadata(&entry).map_err(|source| unreadable(&entry, source))?;
                found.push((entry, file.modified().ok(), file.len()));
            }
        }
    }
    Ok(found)
}

fn is_pem(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pem")
}

fn unreadable(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Io { path: path.to_owned(), source }
}
