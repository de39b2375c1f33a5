//! Memory for messages that are on their way in.
//!
//! A client that begins a large message reserves all of it or stops being read, so that many clients sending at once
//! cost bounded memory: the rest waits in their sockets. Whoever holds a reservation needs nobody else to finish, so
//! waiting always ends.

use std::cell::Cell;

use crate::relay::limits::{READ_BUFFER_BYTES, UNRESERVED_MESSAGE_BYTES};

#[derive(Debug)]
pub struct Ingress {
    free_bytes: Cell<usize>,
    total_bytes: usize,
}

impl Ingress {
    pub fn new(total_bytes: usize) -> Self {
        Self {
            free_bytes: Cell::new(total_bytes),
            total_bytes,
        }
    }

    /// A message larger than the whole budget gets through alone.
    pub fn reserve(&self, bytes: usize) -> bool {
        let free_bytes = self.free_bytes.get();
        if bytes > free_bytes && free_bytes < self.total_bytes {
            return false;
        }
        self.free_bytes.set(free_bytes.saturating_sub(bytes));
        true
    }

    pub fn release(&self, bytes: usize) {
        self.free_bytes
            .set((self.free_bytes.get() + bytes).min(self.total_bytes));
    }

    /// How much a connection may read at a time: little while memory is short, unless it has its reservation.
    pub fn read_bytes_max(&self, reserved_bytes: usize) -> usize {
        let short = self.free_bytes.get() < READ_BUFFER_BYTES && reserved_bytes == 0;
        if short {
            UNRESERVED_MESSAGE_BYTES
        } else {
            READ_BUFFER_BYTES
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_wait_for_each_other_but_never_for_ever() {
        let ingress = Ingress::new(100);
        assert!(ingress.reserve(60));
        assert!(!ingress.reserve(60));
        ingress.release(60);
        assert!(ingress.reserve(60));
        ingress.release(60);
        assert!(
            ingress.reserve(1_000),
            "alone, even a message above the budget is read"
        );
        assert!(!ingress.reserve(1));
        ingress.release(1_000);
        assert!(ingress.reserve(100));
    }
}
