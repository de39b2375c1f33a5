//! Certificates and keys from mounted directories, and noticing that files changed.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::fs;
use std::path::{Path, PathBuf};

use sluice_crds::{manifest, resolve};

const MANIFEST: &str = "
apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata: {name: demo}
spec:
  listeners: [{name: clients, port: 8443, protocol: HTTPS, tls: {certificateRef: {name: cert}}}]
  relay: {authentication: {anonymous: Allowed}}
";

/// A directory of its own for each test, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-crds-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn lines(manifest: &Path, secrets: &Path) -> Vec<String> {
    let (objects, mut problems) = manifest::load(&[manifest.to_owned()], Some(secrets));
    let resolution = resolve::resolve(&objects);
    problems.extend(resolution.problems);
    assert_eq!(
        problems.is_empty(),
        resolution
            .config
            .is_some_and(|config| config.listeners[0].tls.is_some())
    );
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn certificates_are_held_against_their_keys() {
    let dir = Dir::new("tls");
    let manifest = dir.write("demo.yaml", MANIFEST);
    let secrets = dir.0.join("secrets");
    let field = "Gateway default/demo: spec.listeners[0].tls.certificateRef.name";
    let (certificate, key) = pair();

    dir.write("secrets/cert/tls.crt", &certificate);
    dir.write("secrets/cert/tls.key", &key);
    // What Kubernetes keeps beside the keys.
    dir.write("secrets/cert/..data/tls.key", "old");
    assert_eq!(lines(&manifest, &secrets), Vec::<String>::new());

    let instead = "put a certificate (tls.crt) and its own private key (tls.key) there";
    dir.write("secrets/cert/tls.key", &pair().1);
    let mismatch = lines(&manifest, &secrets);
    assert!(
        mismatch.len() == 1 && mismatch[0].ends_with(instead),
        "{mismatch:#?}"
    );

    dir.write("secrets/cert/tls.key", "no key");
    let wanted = format!(
        "{field}: tls.key of Secret default/cert is not a private key; put an unencrypted PEM private key there"
    );
    assert_eq!(lines(&manifest, &secrets), [wanted]);

    dir.write("secrets/cert/tls.crt", &key);
    assert!(
        lines(&manifest, &secrets)[0]
            .contains("tls.crt of Secret default/cert is not a certificate")
    );

    fs::remove_dir_all(secrets.join("cert")).unwrap();
    let wanted = format!(
        "{field}: Secret default/cert does not exist; add the Secret, or name one that exists"
    );
    assert_eq!(lines(&manifest, &secrets), [wanted]);
}

#[test]
fn the_fingerprint_follows_every_file() {
    let dir = Dir::new("fingerprint");
    let manifest = dir.write("demo.yaml", MANIFEST);
    let secrets = dir.0.join("secrets");
    let key = dir.write("secrets/cert/tls.key", "one");
    let paths = [manifest.clone()];
    let now = || manifest::fingerprint(&paths, Some(&secrets));

    let first = now();
    assert_eq!(now(), first);
    fs::write(&key, "two").unwrap();
    let second = now();
    assert_ne!(second, first);
    dir.write("secrets/cert/tls.crt", "new");
    let third = now();
    assert_ne!(third, second);
    fs::remove_file(&manifest).unwrap();
    assert_ne!(now(), third);
}

#[test]
fn a_file_that_cannot_be_read_is_the_only_problem() {
    let dir = Dir::new("missing");
    let (objects, problems) = manifest::load(&[dir.0.join("none.yaml")], None);
    assert_eq!(problems.len(), 1);
    let resolution = resolve::resolve(&objects);
    assert!(resolution.config.is_none() && resolution.problems.is_empty());
}
