//! The interval of checks, with a time that the test sets.

use super::*;

/// A folder with a certificate for `a.example`, which is removed when this is dropped.
struct Served(PathBuf);

impl Served {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ropewalk-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        let served = Self(path);
        served.renew();
        served
    }

    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
        // By renaming, as careful programs do: no reader sees half of the file.
        fs::write(self.0.join("new"), pem).expect("a file");
        fs::rename(self.0.join("new"), self.0.join("a.pem")).expect("a file");
    }

    fn watched(&self, now: SystemTime) -> [Watched; 2] {
        let [certificates, key] = [self.0.join("a.pem"), self.0.join("a.pem")];
        [FilesSource::Folder(self.0.clone()), FilesSource::Files { certificates, more: None, key }]
            .map(|source| Watched::open(source, now).expect("good files"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn shown(watched: &Watched, now: SystemTime) -> Arc<CertifiedKey> {
    watched.find(Some("a.example"), now)
}

/// A renewed certificate for a known name is found by the first handshake after a minute, and not
/// before.
#[test]
fn a_renewed_certificate_is_found_in_time() {
    let (served, begin) = (Served::new("renewed"), SystemTime::now());
    let all = served.watched(begin);
    let before = all.each_ref().map(|watched| shown(watched, begin));
    served.renew();
    for (watched, old) in all.iter().zip(before) {
        assert!(Arc::ptr_eq(&old, &shown(watched, begin + CHECK_INTERVAL - Duration::from_millis(1))));
        let new = shown(watched, begin + CHECK_INTERVAL);
        assert_ne!(old.cert, new.cert);
        // It is also served to a client that asks for no name, and without another check.
        assert!(Arc::ptr_eq(&new, &watched.find(None, begin + CHECK_INTERVAL)));
    }
}

/// Files that have not changed are checked, and not read.
#[test]
fn unchanged_files_are_not_read() {
    let (served, begin) = (Served::new("unchanged"), SystemTime::now());
    for watched in served.watched(begin) {
        let old = shown(&watched, begin);
        assert!(Arc::ptr_eq(&old, &shown(&watched, begin + 2 * CHECK_INTERVAL)));
        assert_eq!(watched.state().checked_at, begin + 2 * CHECK_INTERVAL);
        watched.reload().expect("good files");
        assert!(!Arc::ptr_eq(&old, &shown(&watched, begin)), "read again on request");
    }
}

/// A clock that was set back, even by years, delays no check.
#[test]
fn a_clock_that_was_set_back() {
    let (served, begin) = (Served::new("set-back"), SystemTime::now());
    let [watched, _] = served.watched(begin);
    let old = shown(&watched, begin);
    served.renew();
    assert_ne!(old.cert, shown(&watched, begin - Duration::from_secs(1_000_000)).cert);
}
