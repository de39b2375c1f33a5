#!/usr/bin/env bash
# Starts a sample upstream and a gateway that delivers to it: ingest.sh [QUEUE DIRECTORY]
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --bin sluice --bin sluice-upstream
target=${CARGO_TARGET_DIR:-target}/release
"$target/sluice-upstream" &
upstream=$!
trap 'kill "$upstream" 2>/dev/null' EXIT
"$target/sluice" standalone examples/ingest.yaml --data-dir "${1:-target/ingest-queue}"
