//! What an answer of the upstream means for the request that got it.
