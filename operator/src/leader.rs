//! The lease by which one of several operators writes, and the permit that every write needs.
//!
//! [`run`] owns the election and is the only one that touches the Lease. Everybody else asks [`Leadership`] right before
//! each write.

mod election;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tracing::{info, warn};

use election::{Action, Answer, Election, Lease};
pub use election::{LEASE_TIME, WRITE_TIMEOUT};

/// The longest that reading or writing the Lease may take; several tries fit into the time before writing has to stop.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest that giving the lease back may take; then it runs out by itself.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Annotation of the Lease: where its holder is asked what only it knows.
const ADDRESS: &str = "sluice.dev/address";

/// Name of the Lease, and where its holder is when that is this process.
type Called<'a> = (&'a str, &'a str);

/// Whether this process may write.
#[derive(Debug, Clone)]
pub struct Leadership {
    state: Arc<State>,
    /// Where others ask this process when it leads.
    address: Arc<str>,
}

#[derive(Debug)]
enum State {
    Elected {
        election: Mutex<Election>,
        leading: watch::Sender<bool>,
    },
    /// There is one operator only.
    Alone(watch::Sender<bool>),
}

impl Leadership {
    /// `address`: where others ask this process when it leads; empty: nowhere.
    pub fn contested(identity: &str, address: &str) -> Self {
        let election = Mutex::new(Election::new(identity, Instant::now()));
        let leading = watch::Sender::new(false);
        Self {
            state: Arc::new(State::Elected { election, leading }),
            address: address.into(),
        }
    }

    /// Of who shares with nobody.
    pub fn alone() -> Self {
        Self {
            state: Arc::new(State::Alone(watch::Sender::new(true))),
            address: Arc::default(),
        }
    }

    /// Whether a write may begin now that takes no longer than [`WRITE_TIMEOUT`].
    pub fn may_write(&self) -> bool {
        match &*self.state {
            State::Elected { election, .. } => lock(election).may_write(Instant::now()),
            State::Alone(_) => true,
        }
    }

    /// Where another process is asked that leads.
    pub fn leader(&self) -> Option<String> {
        match &*self.state {
            State::Elected { election, .. } => lock(election).leader().map(str::to_owned),
            State::Alone(_) => None,
        }
    }

    /// Follows whether this process leads.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        match &*self.state {
            State::Elected { leading, .. } | State::Alone(leading) => leading.subscribe(),
        }
    }
}

fn lock(election: &Mutex<Election>) -> std::sync::MutexGuard<'_, Election> {
    // Its steps leave it whole or do not return.
    election.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes part in the election until `stop`, which the caller resolves when none of its writes is under way any more. Then
/// gives the lease back.
pub async fn run(
    leadership: Leadership,
    client: Client,
    namespace: &str,
    name: &str,
    stop: impl Future<Output = ()>,
) {
    let State::Elected { election, leading } = &*leadership.state else {
        return stop.await;
    };
    let leases: Api<LeaseObject> = Api::namespaced(client, namespace);
    let called = (name, &*leadership.address);
    tokio::select! {
        () = take_part(election, leading, &leases, called) => {}
        () = stop => {}
    }
    lock(election).release(Instant::now());
    leading.send_replace(false);
    let released = take_part(election, leading, &leases, called);
    if tokio::time::timeout(RELEASE_TIMEOUT, released)
        .await
        .is_err()
    {
        warn!("the lease could not be given back, and runs out by itself");
    }
}

async fn take_part(
    election: &Mutex<Election>,
    leading: &watch::Sender<bool>,
    leases: &Api<LeaseObject>,
    called: Called<'_>,
) {
    loop {
        let (action, deadline) = {
            let election = lock(election);
            (election.next(Instant::now()), election.deadline())
        };
        match action {
            Action::Done => return,
            Action::Wait(until) => {
                // The end of the permit is a change too.
                let until = deadline
                    .filter(|deadline| *deadline > Instant::now())
                    .map_or(until, |deadline| until.min(deadline));
                tokio::time::sleep_until(until.into()).await;
            }
            Action::Read | Action::Write { .. } => {
                let sent = Instant::now();
                let answer = carry_out(&action, leases, called).await;
                lock(election).answered(&action, answer, sent, Instant::now());
            }
        }
        tell(election, leading);
    }
}

fn tell(election: &Mutex<Election>, leading: &watch::Sender<bool>) {
    let leads = lock(election).may_write(Instant::now());
    leading.send_if_modified(|led| std::mem::replace(led, leads) != leads);
}

async fn carry_out(
    action: &Action,
    leases: &Api<LeaseObject>,
    (name, address): Called<'_>,
) -> Answer {
    let asked = async {
        match action {
            Action::Read => leases.get(name).await,
            Action::Write {
                resource_version,
                holder,
                transitions,
            } => {
                let mut lease = object(name, resource_version.as_deref(), holder, *transitions);
                if !holder.is_empty() {
                    lease.metadata.annotations = annotations(address);
                }
                let how = PostParams::default();
                match resource_version {
                    Some(_) => leases.replace(name, &how, &lease).await,
                    None => leases.create(&how, &lease).await,
                }
            }
            Action::Wait(_) | Action::Done => unreachable!("nothing to carry out"),
        }
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
        Ok(Ok(lease)) => Answer::Found(read(&lease)),
        Ok(Err(Error::Api(status))) if status.code == 404 => Answer::Absent,
        Ok(Err(Error::Api(status))) if status.code == 409 => Answer::Conflict,
        Ok(Err(failure)) => {
            warn!(%failure, "lease");
            Answer::Failed
        }
        Err(_) => {
            warn!("the API server does not answer about the lease");
            Answer::Failed
        }
    }
}

fn object(name: &str, version: Option<&str>, holder: &str, transitions: i32) -> LeaseObject {
    let now = MicroTime(Timestamp::now());
    LeaseObject {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version.map(str::to_owned),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(LEASE_TIME.as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

fn annotations(address: &str) -> Option<BTreeMap<String, String>> {
    (!address.is_empty()).then(|| [(ADDRESS.to_owned(), address.to_owned())].into())
}

fn read(lease: &LeaseObject) -> Lease {
    let annotations = lease.metadata.annotations.as_ref();
    let address = annotations.and_then(|annotations| annotations.get(ADDRESS));
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default());
    Lease {
        resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
        // A holder that promises hours is not waited for that long.
        time: Duration::from_secs(seconds.unwrap_or_default()).min(4 * LEASE_TIME),
        address: address.cloned().unwrap_or_default(),
    }
}

/// Logs who leads.
pub async fn announce(leadership: Leadership) {
    let mut leading = leadership.subscribe();
    loop {
        if *leading.borrow_and_update() {
            info!("leading: this operator writes");
        } else {
            info!("following: another operator writes");
        }
        if leading.changed().await.is_err() {
            return;
        }
    }
}
