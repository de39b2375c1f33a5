//! Questions and orders that go to all processes of the gateway: any of them may hold the client that is meant.
//!
//! A server API command is told to the others as it was given; each carries it out on its own workers and answers. The
//! asker waits for as many answers as there are others, not for ever. What another process asks is answered by a task of
//! its own, a bounded number at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::api;
use super::shared::Shared;
use crate::store::{Holder, PeerSink, Peers, StoreError};

/// How long answers are waited for: what another process's workers may take, and the way.
const ANSWERS_DEADLINE: Duration = Duration::from_millis(1_500);
/// Questions that wait to be answered; who asks more gets no answer in time.
const QUESTIONS_MAX: usize = 4_096;
/// Questions that are worked on at a time.
const QUESTIONS_AT_ONCE: usize = 64;
/// Answers that wait to be taken by who asked: processes of one gateway.
const ANSWERS_MAX: usize = 1_024;

/// What processes tell each other.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Told {
    Question {
        id: u64,
        method: String,
        params: Box<RawValue>,
    },
    Answer {
        id: u64,
        result: Box<RawValue>,
    },
}

struct Question {
    by: Holder,
    id: u64,
    method: String,
    params: Box<RawValue>,
}

/// Questions of this process and of others.
pub struct Surveys {
    next_id: AtomicU64,
    /// Who waits for answers, by the question's id.
    waiting: Mutex<HashMap<u64, mpsc::Sender<Box<RawValue>>>>,
    questions: mpsc::Sender<Question>,
    to_answer: AsyncMutex<mpsc::Receiver<Question>>,
}

impl Default for Surveys {
    fn default() -> Self {
        let (questions, to_answer) = mpsc::channel(QUESTIONS_MAX);
        Self {
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
            questions,
            to_answer: AsyncMutex::new(to_answer),
        }
    }
}

impl PeerSink for Surveys {
    fn told(&self, by: Holder, message: Bytes) {
        match serde_json::from_slice(&message) {
            Ok(Told::Answer { id, result }) => {
                if let Some(waiting) = self.waiting.lock().get(&id) {
                    // Who asked has its answers, or has given up.
                    let _ = waiting.try_send(result);
                }
            }
            Ok(Told::Question { id, method, params }) => {
                let question = Question {
                    by,
                    id,
                    method,
                    params,
                };
                if self.questions.try_send(question).is_err() {
                    tracing::warn!("too many questions of other data planes: one is not answered");
                }
            }
            // A data plane of another version may say more.
            Err(error) => tracing::debug!(%error, "not understood what another data plane said"),
        }
    }
}

/// Forgets the question when its asker is done, or gone.
struct Waiting<'a> {
    surveys: &'a Surveys,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.surveys.waiting.lock().remove(&self.id);
    }
}

impl Surveys {
    /// Has every other process carry the command out; returns their results, those that came in time.
    pub async fn ask(
        &self,
        peers: &dyn Peers,
        method: &str,
        params: &impl Serialize,
    ) -> Result<Vec<Box<RawValue>>, StoreError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, mut answers) = mpsc::channel(ANSWERS_MAX);
        self.waiting.lock().insert(id, sender);
        let _waiting = Waiting { surveys: self, id };
        let question = serde_json::value::to_raw_value(params).map(|params| Told::Question {
            id,
            method: method.to_owned(),
            params,
        });
        let others = peers.tell_others(encode(question)?).await?;
        let mut results = Vec::new();
        let gather = async {
            while results.len() < others
                && let Some(result) = answers.recv().await
            {
                results.push(result);
            }
        };
        if tokio::time::timeout(ANSWERS_DEADLINE, gather)
            .await
            .is_err()
        {
            tracing::warn!(
                method,
                others,
                answered = results.len(),
                "data planes that did not answer"
            );
        }
        Ok(results)
    }
}

/// Answers what other processes ask, for ever.
pub async fn answer_all(shared: &Arc<Shared>) {
    let mut questions = shared.surveys().to_answer.lock().await;
    let questions = stream::poll_fn(|cx| questions.poll_recv(cx));
    questions
        .for_each_concurrent(QUESTIONS_AT_ONCE, |question| answer(shared, question))
        .await;
}

async fn answer(shared: &Arc<Shared>, question: Question) {
    let Question {
        by,
        id,
        method,
        params,
    } = question;
    let Some(result) = api::carry_out_here(shared, &method, params.get()).await else {
        tracing::debug!(
            method,
            "another data plane asked for what this one does not know"
        );
        return;
    };
    let answer = RawValue::from_string(result).map(|result| Told::Answer { id, result });
    let told = match encode(answer) {
        Ok(answer) => shared.peers().tell(&by, answer).await,
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        tracing::debug!(%error, "another data plane's question not answered");
    }
}

fn encode(told: Result<Told, serde_json::Error>) -> Result<Bytes, StoreError> {
    let text = told.and_then(|told| serde_json::to_vec(&told));
    text.map(Bytes::from)
        .map_err(|error| StoreError::Unavailable(format!("cannot be said: {error}")))
}

#[cfg(test)]
mod tests;
