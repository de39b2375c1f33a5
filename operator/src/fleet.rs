//! The managers of all Gateways, while this operator leads: each has a fleet (crate `manager`), which data planes attend over gRPC.
//!
//! [`Fleets`] owns them. It is fed by the passes over Gateways, and asks for another pass when a pod's state changes, since endpoints
//! say who takes new clients. What is decided is the manager's alone.

pub mod identity;
mod metrics;
mod policy;
pub mod server;
mod show;
mod tls;
mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sluice_crds::config::GatewayConfig;
use sluice_manager::grpc::{Directory, Refusal};
use sluice_manager::monitor::api::GatewayName;
use sluice_manager::{Facts, Fleet, PlanSummary, PodFacts, PodName, PodState, Policy};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info};

use crate::object::DATA_PLANE;
use crate::pods::PodView;
use crate::shelf::Key;
use crate::world::World;

pub use metrics::FleetMetrics;
pub use policy::policy;
pub use show::{all as show_all, one as show_one};
pub use tokens::AUDIENCE;

/// Between two looks at a Gateway because of states of pods: each may be a write that every node follows.
const STATES_APART: Duration = Duration::from_secs(1);

/// Asks for a pass over a Gateway.
pub type Wake = Arc<dyn Fn(Key) + Send + Sync>;

pub struct Fleets {
    world: Arc<World>,
    keys: identity::Cluster,
    /// The certificates that data planes are to trust; empty before they are known.
    trusted: watch::Receiver<Arc<str>>,
    wake: Wake,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: this operator does not lead.
    term: Option<u64>,
    fleets: HashMap<Key, Led>,
}

/// A fleet that is led here. Its tasks end with it.
struct Led {
    fleet: Fleet,
    /// What is in force.
    config: Arc<GatewayConfig>,
    _tasks: JoinSet<()>,
}

impl Fleets {
    pub fn new(
        world: Arc<World>,
        keys: identity::Cluster,
        trusted: watch::Receiver<Arc<str>>,
        wake: Wake,
    ) -> Self {
        Self {
            world,
            keys,
            trusted,
            wake,
            state: Mutex::default(),
        }
    }

    /// Follows whether this operator leads. What another decided meanwhile is learnt from the data planes.
    pub async fn follow(&self, mut leading: watch::Receiver<bool>) {
        loop {
            self.lead(*leading.borrow_and_update());
            if leading.changed().await.is_err() {
                return;
            }
        }
    }

    fn lead(&self, leads: bool) {
        {
            let mut state = self.state();
            if leads == state.term.is_some() {
                return;
            }
            state.fleets.clear();
            state.term = leads.then(unix_ms);
        }
        info!(leads, "managers of data planes");
        if leads {
            // A pass may have been there before this, and there may be none for long.
            for (key, _) in self.world.gateways.all() {
                (self.wake)(key);
            }
        }
    }

    /// What a pass knows of a Gateway. Makes its fleet when there is none.
    /// `there`: how many pods Kubernetes was asked for until now.
    pub fn feed(
        &self,
        key: &Key,
        policy: Policy,
        config: &Arc<GatewayConfig>,
        pods: &[Arc<PodView>],
        there: Option<i32>,
    ) {
        let facts = Facts {
            pods: facts(pods),
            replicas: there.and_then(|there| u32::try_from(there).ok()),
        };
        let mut state = self.state();
        let Some(term) = state.term else {
            return;
        };
        let led = state.fleets.entry(key.clone()).or_insert_with(|| {
            debug!(gateway = %format!("{}/{}", key.0, key.1), "fleet begins");
            let (fleet, run) = Fleet::start(term, policy.clone());
            let mut tasks = JoinSet::new();
            tasks.spawn(run);
            tasks.spawn(watch_plans(
                fleet.plans(),
                key.clone(),
                Arc::clone(&self.wake),
            ));
            Led {
                fleet,
                config: Arc::clone(config),
                _tasks: tasks,
            }
        });
        led.config = Arc::clone(config);
        led.fleet.set_policy(policy);
        led.fleet.set_facts(facts);
    }

    pub fn forget(&self, key: &Key) {
        self.state().fleets.remove(key);
    }

    /// Tells one time of leading from another; `None`: this operator does not lead.
    pub fn term(&self) -> Option<u64> {
        self.state().term
    }

    /// The Gateways whose managers are here.
    pub fn led(&self) -> Vec<GatewayName> {
        let state = self.state();
        let mut led: Vec<GatewayName> = state
            .fleets
            .keys()
            .map(|(namespace, name)| GatewayName {
                namespace: namespace.clone(),
                name: name.clone(),
            })
            .collect();
        led.sort();
        led
    }

    pub fn fleet(&self, key: &Key) -> Option<Fleet> {
        self.find(key).ok()
    }

    /// What is in force.
    pub fn config(&self, key: &Key) -> Option<Arc<GatewayConfig>> {
        let state = self.state();
        state.fleets.get(key).map(|led| Arc::clone(&led.config))
    }

    /// The latest plan of a Gateway; `None`: there is no manager here, or it has not decided anything yet.
    pub fn plan(&self, key: &Key) -> Option<Arc<PlanSummary>> {
        let state = self.state();
        let plan = state.fleets.get(key)?.fleet.plans().borrow().clone();
        (plan.version.term > 0).then_some(plan)
    }

    /// All plans; `None`: this operator does not lead.
    pub fn plans(&self) -> Option<BTreeMap<Key, Arc<PlanSummary>>> {
        let state = self.state();
        state.term?;
        let plans = state.fleets.iter();
        Some(
            plans
                .map(|(key, led)| (key.clone(), led.fleet.plans().borrow().clone()))
                .collect(),
        )
    }

    /// Pods that get no new clients although they are ready.
    pub fn fenced(&self, key: &Key) -> BTreeSet<String> {
        let Some(plan) = self.plan(key) else {
            return BTreeSet::new();
        };
        let fenced = plan.pods.iter().filter(|(_, pod)| !pod.state.takes_new());
        fenced.map(|(name, _)| name.to_string()).collect()
    }

    /// The certificates that data planes are to trust.
    pub fn trusted(&self) -> Arc<str> {
        self.trusted.borrow().clone()
    }

    pub fn watch_trusted(&self) -> watch::Receiver<Arc<str>> {
        self.trusted.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Result<Fleet, Refusal> {
        let state = self.state();
        if state.term.is_none() {
            return Err(Refusal::NotLeading);
        }
        let led = state.fleets.get(key);
        led.map(|led| led.fleet.clone()).ok_or_else(|| {
            Refusal::Unknown(format!(
                "there is no Gateway {}/{} that is served",
                key.0, key.1
            ))
        })
    }
}

#[async_trait]
impl Directory for Fleets {
    async fn admit(&self, token: Option<&str>, gateway: &str, pod: &str) -> Result<Fleet, Refusal> {
        let unknown = || Refusal::Unknown(format!("{gateway:?} names no Gateway"));
        let (namespace, name) = gateway.split_once('/').ok_or_else(unknown)?;
        let key: Key = (namespace.to_owned(), name.to_owned());
        // Before anything that costs something.
        let fleet = self.find(&key)?;
        let token =
            token.ok_or_else(|| Refusal::Unauthenticated("there is no token".to_owned()))?;
        let bearer = self.keys.bearer(token).await;
        let bearer = bearer.map_err(|refused| Refusal::Unauthenticated(refused.to_string()))?;
        let known = self.world.pods.get(namespace, pod);
        let is_that_pod = known.is_some_and(|known| {
            known.gateway == name && known.component == DATA_PLANE && known.uid == bearer.pod_uid
        });
        let fits =
            bearer.namespace == namespace && bearer.service_account == name && bearer.pod == pod;
        if fits && is_that_pod {
            return Ok(fleet);
        }
        Err(Refusal::Forbidden(format!(
            "the token is not that of {pod}, a pod of {gateway}"
        )))
    }
}

/// Pods whose template is not that of the youngest pod are being replaced.
fn facts(pods: &[Arc<PodView>]) -> Vec<PodFacts> {
    let running = || pods.iter().filter(|pod| !pod.ended);
    let youngest = running().max_by_key(|pod| (pod.created, pod.name.clone()));
    let current = youngest.map_or("", |pod| pod.template.as_str());
    running()
        .map(|pod| PodFacts {
            name: pod.name.as_str().into(),
            ready: pod.ready,
            terminating: pod.terminating,
            node: pod.node.as_deref().map(Into::into),
            zone: pod.zone.as_deref().map(Into::into),
            current_revision: pod.template == current,
            drain_requested: pod.drain,
        })
        .collect()
}

/// Wakes when there is something to do: another pod takes new clients, there are to be more or fewer pods, or another one goes.
async fn watch_plans(mut plans: watch::Receiver<Arc<PlanSummary>>, key: Key, wake: Wake) {
    let mut seen = (BTreeMap::new(), None);
    while plans.changed().await.is_ok() {
        let plan = plans.borrow_and_update().clone();
        let states: BTreeMap<PodName, PodState> = plan
            .pods
            .iter()
            .map(|(name, pod)| (name.clone(), pod.state))
            .collect();
        let scale = plan.scale.as_ref();
        let scale = scale.map(|scale| (scale.replicas, scale.limit, scale.victim.clone()));
        if (&states, &scale) != (&seen.0, &seen.1) {
            seen = (states, scale);
            wake(key.clone());
            tokio::time::sleep(STATES_APART).await;
        }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
