//! The configuration file and the files of its secrets.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::config::{GatewayConfig, Secret};
use crate::gateway::DATA_KEY;
use crate::problem::{Problem, quoted};
use crate::resolve::pattern;

/// Names that `write` gives.
pub const CONFIG_FILE: &str = "config.json";
pub const SECRETS_DIR: &str = "secrets";

/// Kubernetes allows a ConfigMap of 1 MiB; files of others may be larger.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// Kubernetes allows a Secret of 1 MiB.
const SECRET_BYTES_MAX: u64 = 1 << 20;
/// Of all secrets together; as many as a document of the greatest size could name with keys of usual length.
const SECRETS_BYTES_MAX: usize = 64 << 20;

/// Writes `config.json` and `secrets/` into a directory, which is made when absent.
///
/// Each file is replaced at once, the document after the secrets that it names. Files of secrets that are no longer
/// named stay.
pub fn write(config: &GatewayConfig, dir: &Path) -> io::Result<()> {
    let encoded = super::encode(config);
    let secrets_dir = dir.join(SECRETS_DIR);
    fs::create_dir_all(dir)?;
    match fs::DirBuilder::new().mode(0o700).create(&secrets_dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    for (name, secret) in &encoded.secrets {
        replace(&secrets_dir, name, secret.expose(), 0o600)?;
    }
    replace(dir, CONFIG_FILE, encoded.document.as_bytes(), 0o644)
}

fn replace(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Begins with a dot: no secret is named so.
    let partial = dir.join(format!(".{}.partial", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let _ = fs::remove_file(&partial);
    let written = options.open(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, dir.join(name))
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Reads a configuration file and the secrets it names from a directory.
pub fn read(path: &Path, secrets_dir: &Path) -> Result<GatewayConfig, Vec<Problem>> {
    let name = path.display().to_string();
    let document = document(path).map_err(|error| {
        let instead = "name a file that exists and may be read";
        vec![unreadable(path, &error, instead)]
    })?;
    let mut problems = Vec::new();
    let mut secrets = BTreeMap::new();
    let mut bytes = 0;
    for key in super::secret_names(&name, &document)? {
        if !is_name(&key) {
            let what = format!("{} is no name of a secret", quoted(&key));
            let instead = "write letters, digits, -, _ and ., not first a .";
            problems.push(Problem::new(format!("file {name}"), "", what, instead));
            continue;
        }
        let path = secrets_dir.join(&key);
        let left = SECRETS_BYTES_MAX.saturating_sub(bytes) as u64;
        match bounded(&path, SECRET_BYTES_MAX.min(left)) {
            Ok(secret) => {
                bytes += secret.len();
                secrets.insert(key, Secret::new(secret));
            }
            Err(error) => {
                let instead = "put the secret there, or name the directory of the secrets";
                problems.push(unreadable(&path, &error, instead));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    super::decode(&name, &document, &secrets)
}

/// Changes when anything changes that `read` of the same arguments would read.
pub fn fingerprint(path: &Path, secrets_dir: &Path) -> u64 {
    let mut hash = DefaultHasher::new();
    match document(path) {
        Ok(document) => {
            document.hash(&mut hash);
            let names = super::secret_names("", &document).unwrap_or_default();
            for name in names.iter().filter(|name| is_name(name)) {
                let bytes = bounded(&secrets_dir.join(name), SECRET_BYTES_MAX);
                (name, bytes.map_err(|error| error.kind())).hash(&mut hash);
            }
        }
        Err(error) => error.kind().hash(&mut hash),
    }
    hash.finish()
}

/// Not hidden, and nothing that leads elsewhere.
fn is_name(name: &str) -> bool {
    pattern::matches(DATA_KEY, name) && !name.starts_with('.')
}

fn document(path: &Path) -> io::Result<String> {
    let bytes = bounded(path, DOCUMENT_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text"))
}

fn bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that fits from one that does not.
    let mut file = File::open(path)?.take(bytes_max + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error, instead: &str) -> Problem {
    let object = format!("file {}", path.display());
    Problem::new(object, "", format!("cannot be read: {error}"), instead)
}
