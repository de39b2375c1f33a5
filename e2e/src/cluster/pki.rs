//! Who everybody in the cluster is: an authority, a certificate per component, and the files that hold them.
//!
//! The authority stays with the cluster, so that nodes can be added later. Keys are in files of root's only.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use serde_json::json;

use super::folders::write;

/// A folder of certificates and keys.
pub(super) struct Pki {
    folder: PathBuf,
}

/// A certificate and its key.
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Pki {
    /// The one in the folder, with authorities made if they are not there.
    pub(super) fn open(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700))?;
        let pki = Self { folder };
        for name in ["ca", "front-proxy-ca"] {
            if !pki.certificate(name).exists() {
                let key = KeyPair::generate()?;
                write(&pki.key(name), key.serialize_pem())?;
                let certificate = authority(name)?.self_signed(&key)?;
                write(&pki.certificate(name), certificate.pem())?;
            }
        }
        let (private, public) = pki.service_accounts();
        if !public.exists() {
            let key = KeyPair::generate()?;
            write(&private, key.serialize_pem())?;
            write(&public, pem("PUBLIC KEY", &key.subject_public_key_info()))?;
        }
        Ok(pki)
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.certificate("ca")
    }

    /// What signs the tokens of service accounts, and what verifies them.
    pub(super) fn service_accounts(&self) -> (PathBuf, PathBuf) {
        let file = |name: &str| self.folder.join(name);
        (file("service-accounts.key"), file("service-accounts.pub"))
    }

    /// A certificate for a user of the API, or for a server with these names; made once.
    pub(super) fn identity(
        &self,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[String],
    ) -> Result<Identity> {
        self.issue("ca", file, user, group, names)
    }

    /// What the API server shows to servers that extend it.
    pub(super) fn front_proxy(&self) -> Result<Identity> {
        let name = "front-proxy-client";
        self.issue("front-proxy-ca", name, name, None, &[])
    }

    fn issue(
        &self,
        by: &str,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[String],
    ) -> Result<Identity> {
        let identity = Identity {
            certificate: self.certificate(file),
            key: self.key(file),
        };
        if identity.certificate.exists() {
            return Ok(identity);
        }
        let signing = KeyPair::from_pem(&std::fs::read_to_string(self.key(by))?)?;
        let issuer = Issuer::new(authority(by)?, signing);
        let mut parameters = CertificateParams::new(names.to_vec())?;
        let subject = &mut parameters.distinguished_name;
        subject.push(DnType::CommonName, user);
        if let Some(group) = group {
            subject.push(DnType::OrganizationName, group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        write(&identity.key, key.serialize_pem())?;
        // The certificate comes last: it says that the pair is whole.
        let certificate = parameters.signed_by(&key, &issuer)?;
        write(&identity.certificate, certificate.pem())?;
        Ok(identity)
    }

    /// Writes how `identity` reaches the API server at `url`.
    pub(super) fn kubeconfig(&self, path: &Path, url: &str, identity: &Identity) -> Result<()> {
        let data = |file: &Path| Ok::<_, anyhow::Error>(STANDARD.encode(std::fs::read(file)?));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sluice", "cluster": {
                "server": url,
                "certificate-authority-data": data(&self.ca())?,
            }}],
            "users": [{"name": "user", "user": {
                "client-certificate-data": data(&identity.certificate)?,
                "client-key-data": data(&identity.key)?,
            }}],
            "contexts": [{"name": "sluice", "context": {"cluster": "sluice", "user": "user"}}],
            "current-context": "sluice",
        });
        write(path, serde_json::to_vec_pretty(&config)?)?;
        Ok(std::fs::set_permissions(
            path,
            PermissionsExt::from_mode(0o600),
        )?)
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.crt"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.key"))
    }
}

/// The same each time: a certificate names its issuer by these fields and its key.
fn authority(name: &str) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::<String>::new())?;
    let subject = &mut parameters.distinguished_name;
    subject.push(DnType::CommonName, format!("sluice-e2e-{name}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(parameters)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
