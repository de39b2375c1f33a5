//! By what data planes know the manager: an authority of the operator's own, and the certificate that it signed. Pure but for
//! randomness: what is due is decided by `now`.
//!
//! A new authority is shown to data planes a day before anything is signed by it, and the one before it stays trusted. So nobody
//! meets a certificate that it cannot know.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

const DAY: u64 = 24 * 60 * 60;
const AUTHORITY_LASTS: u64 = 365 * DAY;
/// Another authority is made so long before one ends.
const AUTHORITY_RENEWED: u64 = 30 * DAY;
/// Everybody has seen the next authority after this.
const AUTHORITY_SHOWN: u64 = DAY;
const SERVER_LASTS: u64 = 90 * DAY;
const SERVER_RENEWED: u64 = 30 * DAY;
/// Clocks differ.
const BACKDATED: u64 = 60 * 60;

/// How often it is looked at whether something is due.
pub(super) const LOOKED_AT: Duration = Duration::from_secs(60 * 60);

/// What the Secret keeps. Times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    authority: Authority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Authority>,
    /// The certificate of the authority before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<String>,
    server: Server,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authority {
    certificate: String,
    key: String,
    since: u64,
    until: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    certificate: String,
    key: String,
    names: Vec<String>,
    until: u64,
}

impl Identity {
    /// What is due now, done: the same identity when nothing is.
    pub(super) fn renewed(
        known: Option<Self>,
        names: &[String],
        now: u64,
    ) -> Result<Self, rcgen::Error> {
        let Some(mut identity) = known.filter(|known| known.authority.until > now) else {
            let authority = Authority::new(now)?;
            let server = authority.sign(names, now)?;
            return Ok(Self {
                authority,
                next: None,
                former: None,
                server,
            });
        };
        let ends = identity.authority.until.saturating_sub(AUTHORITY_RENEWED) <= now;
        if ends && identity.next.is_none() {
            identity.next = Some(Authority::new(now)?);
        }
        let shown = |next: &Authority| next.since + AUTHORITY_SHOWN <= now;
        if let Some(next) = identity.next.take_if(|next| shown(next)) {
            identity.server = next.sign(names, now)?;
            let former = std::mem::replace(&mut identity.authority, next);
            identity.former = Some(former.certificate);
        }
        let due = identity.server.until.saturating_sub(SERVER_RENEWED) <= now;
        if due || identity.server.names != names {
            identity.server = identity.authority.sign(names, now)?;
        }
        Ok(identity)
    }

    /// The certificates that data planes trust.
    pub(super) fn trusted(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let all = [
            Some(self.authority.certificate.as_str()),
            next,
            self.former.as_deref(),
        ];
        all.into_iter().flatten().collect()
    }

    /// Certificate and private key of the server, both PEM.
    pub(super) fn server(&self) -> (&str, &str) {
        (&self.server.certificate, &self.server.key)
    }
}

impl Authority {
    fn new(now: u64) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let until = now + AUTHORITY_LASTS;
        let certificate = authority_params(now, until)?.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            since: now,
            until,
        })
    }

    fn sign(&self, names: &[String], now: u64) -> Result<Server, rcgen::Error> {
        let issuer = Issuer::new(
            authority_params(self.since, self.until)?,
            KeyPair::from_pem(&self.key)?,
        );
        let key = KeyPair::generate()?;
        let until = (now + SERVER_LASTS).min(self.until);
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "sluice manager");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now, until);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Server {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            names: names.to_vec(),
            until,
        })
    }
}

/// Always the same for the same authority, so that it need not be read back from its certificate.
fn authority_params(since: u64, until: u64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    // A name of its own, so that two of them are told apart.
    let name = format!("sluice manager authority {since}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, since, until);
    Ok(params)
}

fn valid(params: &mut CertificateParams, since: u64, until: u64) {
    let time = |seconds: u64| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    params.not_before = time(since.saturating_sub(BACKDATED)).into();
    params.not_after = time(until).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn names() -> Vec<String> {
        vec!["m.n.svc".to_owned()]
    }

    fn renewed(known: &Identity, now: u64) -> Identity {
        Identity::renewed(Some(known.clone()), &names(), now).unwrap()
    }

    fn count(identity: &Identity) -> usize {
        identity.trusted().matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn nothing_is_done_before_it_is_due() {
        let first = Identity::renewed(None, &names(), NOW).unwrap();
        assert!(first == renewed(&first, NOW + 59 * DAY));
        assert_eq!(count(&first), 1);
        let server = renewed(&first, NOW + 60 * DAY);
        assert!(server.authority == first.authority && server.server != first.server);
        let other = ["other.n.svc".to_owned()];
        let other = Identity::renewed(Some(first.clone()), &other, NOW).unwrap();
        assert!(other.server != first.server);
    }

    #[test]
    fn the_next_authority_is_shown_before_it_signs_and_the_former_stays() {
        let first = Identity::renewed(None, &names(), NOW).unwrap();
        let end = NOW + AUTHORITY_LASTS;
        let shown = renewed(&first, end - 30 * DAY);
        assert!(shown.authority == first.authority);
        assert_eq!(count(&shown), 2);
        let early = renewed(&shown, end - 30 * DAY + DAY - 1);
        assert!(early.authority == first.authority);
        let changed = renewed(&shown, end - 29 * DAY);
        assert!(changed.authority == *shown.next.as_ref().unwrap());
        assert_eq!(count(&changed), 2);
        assert!(changed.trusted().contains(&first.authority.certificate));
        assert!(changed.server.until <= changed.authority.until);
    }

    #[test]
    fn what_has_ended_is_made_anew() {
        let first = Identity::renewed(None, &names(), NOW).unwrap();
        let late = renewed(&first, NOW + AUTHORITY_LASTS);
        assert!(late.authority != first.authority);
    }

    #[test]
    fn it_comes_back_from_its_text() {
        let identity = Identity::renewed(None, &names(), NOW).unwrap();
        let text = serde_json::to_string(&identity).unwrap();
        assert!(serde_json::from_str::<Identity>(&text).unwrap() == identity);
    }
}
