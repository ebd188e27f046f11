//! Files of keys and certificates: who may have them, and whether they fit each other.
//!
//! While the server runs the parent opens them for *keys* and *dispatcher* and reads nothing. It reads
//! them once, before it starts any role: whether a configuration can be served is said before it is.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::requests::{open_regular, version};
use crate::config::{Config, KeyFile, KeyFileProblem};
use crate::ipc::message::parent::{FileVersion, MapAnswer, PkiFile};
use crate::tls::{client, key};

/// Largest file of keys or certificates, in bytes: bundles of authorities have some hundred KiB.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Opens a file for a role, unless it is still the `known` one. Relative names begin at `directory`;
/// `rootless` says that keys belong to whoever runs the server.
pub fn open(
    config: &Config,
    directory: &Path,
    file: PkiFile,
    known: Option<FileVersion>,
    rootless: bool,
) -> (MapAnswer, Option<OwnedFd>) {
    let Some((path, kind)) = path_of(config, file) else {
        return (MapAnswer::Failed("no such entry".to_owned()), None);
    };
    let path = directory.join(path);
    let opened = || {
        let read = |error: io::Error| KeyFileProblem::Unreadable(error);
        if known.is_some() && Some(version(&std::fs::metadata(&path).map_err(read)?)) == known {
            return Ok(None);
        }
        let file = open_regular(&path).map_err(read)?;
        check(&file, kind, rootless)?;
        let version = version(&file.metadata().map_err(read)?);
        Ok::<_, KeyFileProblem>(Some((version, file)))
    };
    match opened() {
        Ok(None) => (MapAnswer::Same, None),
        Ok(Some((version, file))) => (MapAnswer::Opened(version), Some(file.into())),
        Err(problem) => (MapAnswer::Failed(format!("{}: {problem}", path.display())), None),
    }
}

fn path_of(config: &Config, file: PkiFile) -> Option<(&str, KeyFile)> {
    let pki = |index: u32| config.pki.get(index as usize);
    match file {
        PkiFile::Authority(index) => {
            let authority = config.authorities.get(index as usize)?;
            Some((&authority.certificate, KeyFile::Certificate))
        }
        PkiFile::Certificate(index) => Some((&pki(index)?.certificate, KeyFile::Certificate)),
        PkiFile::Key(index) => Some((&pki(index)?.key, KeyFile::Key)),
    }
}

/// Whether an open file belongs to root (or, of a rootless server, to whoever runs it), and no more
/// people may read and write it than `kind` allows.
///
/// # Errors
/// Says which of these is not so.
pub fn check(file: &File, kind: KeyFile, rootless: bool) -> Result<(), KeyFileProblem> {
    let metadata = file.metadata().map_err(KeyFileProblem::Unreadable)?;
    let own = rootless && metadata.uid() == platform::privilege::effective_uid();
    if metadata.uid() != 0 && !own {
        return Err(KeyFileProblem::Owner);
    }
    if metadata.mode() & 0o777 & !kind.mode() != 0 {
        return Err(KeyFileProblem::Mode);
    }
    Ok(())
}

/// Whether a certificate and a key can be used together.
///
/// # Errors
/// Says why not.
pub fn check_pair(certificate: &Path, key_file: &Path) -> Result<(), String> {
    let read = |path: &Path| read(path).map_err(|error| format!("{}: {error}", path.display()));
    key::check_pair(&read(certificate)?, &read(key_file)?).map_err(|error| error.to_string())
}

/// Whether there are certificates of authorities in a file.
///
/// # Errors
/// Says why not.
pub fn check_authorities(path: &Path) -> Result<(), String> {
    let text = read(path).map_err(|error| error.to_string())?;
    client::authorities(&text).map(drop).map_err(|error| error.to_string())
}

/// The content of a file, erased when it is dropped.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open_regular(path)?;
    // With room for all of it, so that no part stays behind where the vector was before it grew.
    let room = file.metadata()?.len().min(MAX_FILE) as usize;
    let mut text = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use platform::Role;

    use super::*;
    use crate::config::rehearsal::Files;
    use crate::ipc::message::parent::RoleToParent;
    use crate::tls::fixture::{Kind, certificate};

    fn write(path: &std::path::Path, text: &str, mode: u32) -> String {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_role_gets_the_files_of_the_configuration_that_only_the_server_may_change() {
        let directory = tempfile::tempdir().unwrap();
        let made = certificate(Kind::P256, "mx.example.org");
        write(&directory.path().join("cert"), &made.certificate, 0o644);
        let key = write(&directory.path().join("key"), &made.key, 0o600);
        let text = format!("pki x cert \"cert\" key \"{key}\"\nmatch reject\n");
        let mut files = Files::main(text);
        files.add("cert", "");
        files.add(&key, "");
        let config = files.reading(&[]).config;
        let open = |file, known| super::open(&config, directory.path(), file, known, true);
        let (MapAnswer::Opened(version), Some(_)) = open(PkiFile::Key(0), None) else {
            panic!("the key is not opened");
        };
        assert!(matches!(open(PkiFile::Key(0), Some(version)), (MapAnswer::Same, None)));
        assert!(matches!(open(PkiFile::Certificate(0), None), (MapAnswer::Opened(_), Some(_))));
        for file in [PkiFile::Key(1), PkiFile::Certificate(9), PkiFile::Authority(0)] {
            assert!(matches!(open(file, None), (MapAnswer::Failed(_), None)), "{file:?}");
        }
        write(&directory.path().join("key"), &made.key, 0o644);
        let (MapAnswer::Failed(problem), None) = open(PkiFile::Key(0), Some(version)) else {
            panic!("a key that everybody can read is opened");
        };
        assert_eq!(problem, format!("{key}: insecure permissions"));
    }

    #[test]
    fn only_keys_may_have_a_key() {
        let open = |file| RoleToParent::OpenPki { file, known: None };
        for role in Role::ALL {
            let is_keys = role == Role::Keys;
            let is_dispatcher = role == Role::Dispatcher;
            assert_eq!(open(PkiFile::Key(0)).allowed_from(role), is_keys, "{role:?}");
            for file in [PkiFile::Certificate(0), PkiFile::Authority(0)] {
                assert_eq!(open(file).allowed_from(role), is_dispatcher, "{role:?}");
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_found_before_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let one = certificate(Kind::P256, "mx.example.org");
        let other = certificate(Kind::P256, "mx.example.org");
        let file = |name: &str, text: &str| {
            PathBuf::from(write(&directory.path().join(name), text, 0o600))
        };
        let (certificate, key) = (file("cert", &one.certificate), file("key", &one.key));
        let wrong = file("wrong", &other.key);
        assert_eq!(check_pair(&certificate, &key), Ok(()));
        let problem = "the key does not belong to the certificate";
        assert_eq!(check_pair(&certificate, &wrong), Err(problem.to_owned()));
        assert_eq!(check_authorities(&certificate), Ok(()));
        assert!(
            check_authorities(&key).is_err()
                && check_authorities(Path::new("/nonexistent")).is_err()
        );
    }
}
