//! The Redis of a Gateway within its pass: its objects and passwords, what its minder is given, what is told of it.

use sluice_crds::gateway::{ManagedRedis, Redis};
use tracing::warn;

use super::apply;
use super::build::{self, Validated};
use super::dereference::Snapshot;
use super::status::RedisFacts;
use super::{Reconciler, validate};
use crate::cluster::WriteError;
use crate::kinds::Kind;
use crate::managed::{self, REDIS, Subject, Tls};
use crate::object::{Object, Owner};
use crate::redis::client_config;
use crate::redis::config::Passwords;

impl Reconciler {
    /// The objects of the Redis that the operator runs, if the Gateway wants one; how to reach it goes into the snapshot.
    pub(super) async fn managed_redis(
        &self,
        snapshot: &mut Snapshot,
    ) -> Result<Vec<Object>, WriteError> {
        match managed_spec(snapshot) {
            Some(spec) => self.managed_objects(snapshot, &spec).await,
            None => Ok(Vec::new()),
        }
    }

    /// The same for what a Gateway says or has said.
    pub(super) async fn managed_objects(
        &self,
        snapshot: &mut Snapshot,
        spec: &ManagedRedis,
    ) -> Result<Vec<Object>, WriteError> {
        let owner = validate::owner(snapshot);
        let passwords = self.passwords(snapshot, &owner).await?;
        let connection = managed::connection(&owner, spec, &passwords);
        let managed_redis = &mut snapshot.objects.managed_redis;
        managed_redis.insert(snapshot.key.clone(), connection);
        let secrets = &snapshot.objects.secrets;
        let certificate = managed::certificate(spec, &owner, secrets, &snapshot.live);
        let name = managed::build::revision_name(&owner, spec, certificate.as_deref());
        let revision = self
            .known(Kind::ControllerRevision, &name, &owner, snapshot)
            .await?;
        let pinned = revision
            .as_ref()
            .and_then(|revision| build::template_of(&revision.data));
        let pods = self.minder.pods(&snapshot.key);
        let plan = managed::build::Plan {
            owner: &owner,
            spec,
            default_image: &self.defaults.redis_image,
            passwords: &passwords,
            certificate: certificate.as_deref(),
            pods: &pods,
            live: &snapshot.live,
        };
        Ok(managed::build::build(&plan, pinned))
    }

    /// As they were made once. New ones are used only after they are kept.
    async fn passwords(&self, snapshot: &Snapshot, owner: &Owner) -> Result<Passwords, WriteError> {
        let key = &snapshot.key;
        let name = managed::name(owner);
        let kept = self.known(Kind::Secret, &name, owner, snapshot).await?;
        // Somebody else's is neither used nor written; that it is there is told when it is to be applied.
        let is_foreign = kept
            .as_deref()
            .is_some_and(|kept| !apply::is_owned(owner, kept));
        let kept = kept.as_deref().filter(|_| !is_foreign);
        let kept = kept.and_then(managed::passwords_of);
        let remembered = || {
            self.memory()
                .get(key)
                .and_then(|memory| memory.passwords.clone())
        };
        let passwords = match kept.or_else(remembered) {
            Some(passwords) => passwords,
            None => {
                let made = managed::generate()
                    .ok_or_else(|| WriteError::Failed("no random numbers".to_owned()))?;
                if !is_foreign {
                    let secret = managed::secret(owner, &made);
                    self.writer.apply(&owner.namespace, &secret).await?;
                }
                made
            }
        };
        self.remember(key, |memory| memory.passwords = Some(passwords.clone()));
        Ok(passwords)
    }

    pub(super) fn mind_redis(&self, snapshot: &Snapshot, valid: &Validated) {
        let key = &snapshot.key;
        let redis = valid.spec.redis.as_ref();
        let spec = redis.and_then(|redis| redis.managed.as_ref());
        let passwords = self
            .memory()
            .get(key)
            .and_then(|memory| memory.passwords.clone());
        match (&valid.config.redis, spec) {
            (Some(external), None) => self.externals.look(key, external),
            (_, Some(_)) | (None, None) => self.externals.forget(key),
        }
        let (Some(spec), Some(passwords)) = (spec, passwords) else {
            self.minder.forget(key);
            return;
        };
        let tls = match tls(valid) {
            Ok(tls) => tls,
            Err(why) => return warn!(gateway = key.1, why, "redis is not looked after"),
        };
        let pods = self.world.pods_of(key, REDIS);
        let wanted = managed::wanted(spec);
        let (owner, live) = (&valid.owner, &snapshot.live);
        let subject = Subject::new(owner, wanted, passwords, tls, &pods, live);
        self.minder.look(key, subject);
    }

    pub(super) fn redis_facts(&self, snapshot: &Snapshot, valid: Option<&Validated>) -> RedisFacts {
        match valid.map(|valid| &valid.spec.redis) {
            None => RedisFacts::Unknown,
            Some(None) => RedisFacts::Unused,
            Some(Some(Redis { managed: None, .. })) => RedisFacts::External {
                told: self.externals.told(&snapshot.key),
            },
            Some(Some(Redis {
                managed: Some(_), ..
            })) => {
                let pods = self.world.pods_of(&snapshot.key, REDIS);
                let owner = validate::owner(snapshot);
                self.minder.facts(&snapshot.key, &owner, &pods)
            }
        }
    }
}

/// As data planes are told.
fn tls(valid: &Validated) -> Result<Option<Tls>, String> {
    let redis = valid.config.redis.as_ref();
    let tls = redis.and_then(|redis| redis.tls.as_ref());
    let tls = tls.map(|tls| {
        Ok(Tls {
            config: client_config(tls)?,
            server_name: tls.server_name.clone(),
        })
    });
    tls.transpose()
}

/// What the Gateway wants of a Redis that the operator runs, unless it is paused or cannot be read.
fn managed_spec(snapshot: &Snapshot) -> Option<ManagedRedis> {
    let spec = snapshot.gateway.data.pointer("/spec/redis/managed")?;
    let paused = snapshot
        .gateway
        .data
        .pointer("/spec/operation/reconciliation");
    let has_secret = || {
        let name = managed::name(&validate::owner(snapshot));
        snapshot.live.contains_key(&(Kind::Secret, name))
    };
    if paused.is_some_and(|mode| mode == "Paused") && !has_secret() {
        return None;
    }
    serde_json::from_value(spec.clone()).ok()
}
