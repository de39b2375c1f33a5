//! Presence, presence stats and history.

use sluice_crds::config::Allowed;

use super::{Ask, Env, Live, Session, Step};
use crate::relay::channel::Channel;
use crate::relay::codes;
use crate::relay::history::MAX_RECOVERED;
use crate::relay::protocol::{ErrorReply, HistoryRequest, ResultBody};
use crate::store::{ReadOptions, Retention, StoreError};

/// A question to a store.
#[derive(Debug)]
pub enum Query {
    Presence(Channel),
    PresenceStats(Channel),
    History {
        channel: Channel,
        retention: Retention,
        options: ReadOptions,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum QueryError {
    Store(StoreError),
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Live {
    pub(super) fn presence(&self, id: u32, channel: &str, env: &Env<'_>) -> Step {
        self.server_list(id, channel, env, Query::Presence)
    }

    pub(super) fn presence_stats(&self, id: u32, channel: &str, env: &Env<'_>) -> Step {
        self.server_list(id, channel, env, Query::PresenceStats)
    }

    /// The queries that overload refuses first.
    fn server_list(
        &self,
        id: u32,
        channel: &str,
        env: &Env<'_>,
        query: fn(Channel) -> Query,
    ) -> Step {
        if channel.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        if env.shed_queries {
            return Step::error(id, codes::ERROR_TOO_MANY_REQUESTS);
        }
        let (channel, namespace) = match self.channel(channel, env) {
            Ok(known) => known,
            Err(error) => return Step::error(id, error),
        };
        if !namespace.presence {
            return Step::error(id, codes::ERROR_NOT_AVAILABLE);
        }
        if let Err(error) = self.may_ask(namespace.ask_presence, &channel) {
            return Step::error(id, error);
        }
        Step::ask(Ask::Query {
            id,
            query: query(channel),
        })
    }

    pub(super) fn history(&self, id: u32, request: HistoryRequest, env: &Env<'_>) -> Step {
        if request.channel.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        let (channel, namespace) = match self.channel(&request.channel, env) {
            Ok(known) => known,
            Err(error) => return Step::error(id, error),
        };
        let Some(history) = namespace.history else {
            return Step::error(id, codes::ERROR_NOT_AVAILABLE);
        };
        if let Err(error) = self.may_ask(namespace.ask_history, &channel) {
            return Step::error(id, error);
        }
        let limit = usize::try_from(request.limit).unwrap_or(MAX_RECOVERED);
        let options = ReadOptions {
            since: request.since,
            limit: Some(limit.min(MAX_RECOVERED)),
            reverse: request.reverse,
        };
        let retention = Retention {
            size: history.size,
            ttl: history.ttl,
        };
        Step::ask(Ask::Query {
            id,
            query: Query::History {
                channel,
                retention,
                options,
            },
        })
    }

    fn may_ask(&self, allowed: Allowed, channel: &Channel) -> Result<(), ErrorReply> {
        if self.allows(allowed, channel) {
            Ok(())
        } else {
            Err(codes::ERROR_PERMISSION_DENIED)
        }
    }
}

impl Session {
    pub fn queried(&mut self, id: u32, outcome: Result<ResultBody, QueryError>) -> Step {
        match outcome {
            Ok(result) => Step::reply(id, result),
            Err(QueryError::Store(StoreError::UnrecoverablePosition)) => {
                Step::error(id, codes::ERROR_UNRECOVERABLE_POSITION)
            }
            Err(QueryError::Store(StoreError::Unavailable(_))) => {
                Step::error(id, codes::ERROR_INTERNAL)
            }
        }
    }
}
