//! Counters, gauges and histograms of ingest, by names that stay.
