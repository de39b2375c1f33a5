//! Limits of connections per account, over all processes of the gateway.
//!
//! Each process tells how many connections of an account it has; the store compares the sum with the limit. While the
//! store is away each process holds the limit by itself, and tells its numbers when the store is back. Without a
//! limit nothing is told.

use std::sync::Arc;
use std::time::Duration;

use super::account::Seat;
use super::shared::Shared;

/// Pause before numbers are told again that the store did not take.
const RETRY: Duration = Duration::from_secs(1);

/// Counts a connection in. `None`: the account has as many as it may.
pub async fn enter(shared: &Shared, account: &Arc<str>, limit: Option<usize>) -> Option<Seat> {
    let accounts = shared.accounts();
    let seat = accounts.enter(account, limit)?;
    if limit.is_none() {
        return Some(seat);
    }
    let _turn = accounts.turn(account).await;
    let connections = accounts.connections(account);
    let taken = shared
        .presence()
        .take_seats(shared.holder(), account, connections, limit)
        .await;
    match taken {
        Ok(true) => Some(seat),
        Ok(false) => None,
        Err(error) => {
            tracing::debug!(%error, "connections of an account are limited by this process alone");
            accounts.mark_changed(account);
            Some(seat)
        }
    }
}

/// Tells numbers that changed otherwise than by [`enter`], for ever.
pub async fn keep(shared: Arc<Shared>) {
    let accounts = shared.accounts();
    loop {
        let mut failed = false;
        for account in accounts.take_changed().await {
            let _turn = accounts.turn(&account).await;
            let connections = accounts.connections(&account);
            let told = shared
                .presence()
                .take_seats(shared.holder(), &account, connections, None)
                .await;
            if told.is_err() {
                failed = true;
                accounts.mark_changed(&account);
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        }
    }
}
