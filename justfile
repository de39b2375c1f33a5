# What CI runs, one recipe per step. `./test.sh` installs what the recipes need and runs `just ci`.

set shell := ["bash", "-euo", "pipefail", "-c"]

tools := env("XDG_CACHE_HOME", env("HOME", "/tmp") / ".cache") / "sluice/tools"

export PATH := tools / "bin" + ":" + env("PATH")
export RUST_LIB_BACKTRACE := "0"

# The cluster's tests that are left out here take longer than all others together; `just cluster-tests` runs them too.
#
# What CI runs, in its order
ci: fmt page clippy deny test (cluster-tests "cluster_autoscale" "cluster_chart_rendered" "cluster_endpoints" "cluster_faults" "cluster_fleet" "cluster_gateway" "cluster_leaves_nothing" "cluster_monitor" "cluster_operator" "cluster_redis_tls" "cluster_rollout" "cluster_start" "cluster_verdicts" "cluster_workloads")

# Formatting is as rustfmt makes it
fmt:
    cargo fmt --all --check

# No lint warns
clippy:
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --workspace --test 'cluster_*' -- -D warnings

# The monitor's page, into target/page; Rust builds after it have it in their programs, those without it say so
page:
    page/build.sh

# Each crate builds alone, with the features it asks for itself; compiles the dependencies once for each crate
check:
    for crate in proto crds manager operator dataplane e2e; do cargo check --locked --package "sluice-$crate"; done

# Licences, duplicates and sources of the dependencies
deny:
    cargo deny --locked --all-features check bans licenses sources

# Known vulnerabilities in the dependencies; fetches the advisory database
advisories:
    cargo deny --locked --all-features check advisories

# All tests: of each crate, and end to end with the `sluice` that is built beside them
test:
    cargo test --locked --workspace --no-run
    SLUICE_BIN="$(realpath "${CARGO_TARGET_DIR:-target}")/debug/sluice" cargo test --locked --workspace

# A real Kubernetes on this machine: up [--nodes N], down, status, env, load-image, kill-node, cut-link, ... (--help)
cluster *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    # With the features that the whole workspace asks for: else most dependencies would be built a second time.
    cargo build --locked --quiet --workspace --bin sluice-e2e
    program=${CARGO_TARGET_DIR:-target}/debug/sluice-e2e
    # What is built belongs to the user; the cluster itself is root's.
    case " {{ARGS}} " in *" up "*) "$program" cluster build ;; esac
    [ "$(id -u)" = 0 ] || exec sudo env "PATH=$PATH" "HOME=$HOME" ${XDG_CACHE_HOME:+"XDG_CACHE_HOME=$XDG_CACHE_HOME"} "$program" cluster {{ARGS}}
    exec "$program" cluster {{ARGS}}

# The images as OCI archives in target/images: with --release those to use, else those of the tests
images *ARGS: page
    images/build.sh {{ARGS}}

# The tests in e2e/tests that need a Kubernetes and match one of NAMES, on one that is made for them and removed after them
cluster-tests *NAMES="cluster_*":
    #!/usr/bin/env bash
    set -euo pipefail
    set -f # names are patterns for cargo
    tests=()
    for name in {{NAMES}}; do tests+=(--test "$name"); done
    as_root=()
    if [ "$(id -u)" != 0 ]; then
      # cargo itself stays the user's.
      as_root=(sudo env "PATH=$PATH" "HOME=$HOME" "CARGO_TARGET_DIR=$PWD/${CARGO_TARGET_DIR:-target}")
      [ -z "${XDG_CACHE_HOME:-}" ] || as_root+=("XDG_CACHE_HOME=$XDG_CACHE_HOME")
      export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="${as_root[*]}"
      export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${as_root[*]}"
    fi
    images/build.sh
    # Builds the program too, with the features that `just test` built everything with.
    cargo test --locked --workspace "${tests[@]}" --no-run
    program=${CARGO_TARGET_DIR:-target}/debug/sluice-e2e
    "$program" cluster build
    for tool in helm kubeconform kubectl-validate kube-score promtool; do "$program" cluster build "$tool" >/dev/null; done
    trap '"${as_root[@]}" "$program" cluster down --name tests' EXIT
    "${as_root[@]}" "$program" cluster up --nodes 3 --name tests
    cargo test --locked --workspace --no-fail-fast "${tests[@]}"

# SCALE_GATEWAYS=1000 SCALE_APPLICATIONS=10000 for more than 200 and 2,000; on a cluster of its own, removed after it
#
# The operator's memory and speed with many Gateways and Applications, whose pods are pretended
cluster-scale:
    #!/usr/bin/env bash
    set -euo pipefail
    [ "$(id -u)" = 0 ] || { echo "it needs root" >&2; exit 1; }
    target=${CARGO_TARGET_DIR:-target}
    cargo build --locked --release --package sluice-operator
    SLUICE_OPERATOR_BIN=$(realpath "$target/release/sluice-operator")
    export SLUICE_OPERATOR_BIN
    cargo test --locked --workspace --test cluster_scale --no-run
    cargo build --locked --quiet --workspace --bin sluice-e2e
    trap '"$target/debug/sluice-e2e" cluster down --name scale' EXIT
    cargo test --locked --workspace --test cluster_scale -- --ignored --nocapture

# The end-to-end tests whose file in e2e/tests has NAME in its name
e2e NAME="":
    #!/usr/bin/env bash
    set -euo pipefail
    tests=()
    for file in e2e/tests/*{{NAME}}*.rs; do
      [ -e "$file" ] || { echo "no file in e2e/tests has '{{NAME}}' in its name" >&2; exit 1; }
      tests+=(--test "$(basename "$file" .rs)")
    done
    cargo test --locked --package sluice-e2e "${tests[@]}"

# crash, shared-idle and published: on three data planes; --redis single|cluster: all peers on Redis; results in target/bench
#
# The relay beside its peers and the kernel's limit
bench-relay *ARGS:
    cargo build --locked --release --package sluice-dataplane --package sluice-e2e --bins
    SLUICE_BIN="$PWD/target/release/sluice" target/release/bench-relay {{ARGS}}

# accept: beside nginx; backlog: with millions waiting; redis: beside XADD; spike (--kill); deliver; results in target/bench
#
# Ingest beside its peers, with much waiting, and in a spike
bench-ingest *ARGS:
    cargo build --locked --release --package sluice-dataplane --package sluice-e2e --bins
    SLUICE_BIN="$PWD/target/release/sluice" target/release/bench-ingest {{ARGS}}

# The manager of 10, 100 and 1,000 pods that report every second: its CPU and memory
bench-manager *ARGS:
    cargo build --locked --release --package sluice-dataplane --package sluice-e2e --bins
    SLUICE_BIN="$PWD/target/release/sluice" target/release/bench-manager {{ARGS}}

# Writes the CRDs from the types in crds/src, for the chart too
crds:
    cargo run --locked --quiet --package sluice-crds --bin crdgen -- crds/yaml charts/sluice/files/crds.yaml
