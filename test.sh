#!/usr/bin/env bash
# Installs what the tests need, once, and runs everything CI runs: `./test.sh`. Or another recipe of the justfile with its
# arguments: `./test.sh cluster up`.
#
# Needs rustup, and Debian's apt (with root or sudo) for the packages that are missing. Tools built here are kept
# under the user's cache directory; SDKs and results under target/.
set -euo pipefail
cd "$(dirname "$0")"

just_version=1.59.0
deny_version=0.20.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/tools

step() { printf '\n==> %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

system_packages() {
  local missing=() busybox
  command -v cc >/dev/null && command -v make >/dev/null || missing+=(build-essential)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v flock >/dev/null || missing+=(util-linux)
  command -v curl >/dev/null || missing+=(curl)
  command -v git >/dev/null || missing+=(git)
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  command -v go >/dev/null || missing+=(golang-go)
  # Of the page's tests.
  command -v chromium >/dev/null || missing+=(chromium)
  command -v redis-server >/dev/null || missing+=(redis-server)
  # Of the images: what builds them, and the C library of static programs.
  command -v buildah >/dev/null || missing+=(buildah)
  command -v musl-gcc >/dev/null || missing+=(musl-tools)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  # Of the cluster: its nodes' container runtime and network, and the image of the tests' pods.
  command -v ip >/dev/null || missing+=(iproute2)
  [ -x /usr/sbin/nft ] || missing+=(nftables)
  [ -x /usr/sbin/iptables ] || missing+=(iptables)
  [ -x /usr/sbin/runc ] || missing+=(runc)
  [ -x /usr/lib/cni/ptp ] || missing+=(containernetworking-plugins)
  # The busybox of the other package needs libraries, and names them at its start.
  { busybox=$(command -v busybox) && ! head -c 1024 "$busybox" | grep -q ld-linux; } || missing+=(busybox-static)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
  [ ${#missing[@]} = 0 ] && return
  step "Installing ${missing[*]}"
  as_root apt-get update -qq </dev/null
  without_services as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
}

# Runs a command that installs packages, whose services are not started, now or at boot: the tests start their own.
without_services() {
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  local failed=0
  "$@" || failed=$?
  [ -z "$ours" ] || as_root rm -f "$policy"
  case " $* " in *" redis-server "*) as_root update-rc.d redis-server disable || true ;; esac
  return "$failed"
}

# Installs a cargo tool of one version; a debug build, because it is built more often than it is waited for.
cargo_tool() {
  local name=$1 version=$2
  if [ "$("$tools/bin/$name" --version 2>/dev/null)" = "$name $version" ]; then return; fi
  step "Building $name $version"
  cargo install --quiet --debug --locked --force --root "$tools" --version "$version" "$name" </dev/null
}

[ -d "$HOME/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin
command -v cargo >/dev/null || { echo "rustup is missing: see the README" >&2; exit 1; }
command -v apt-get >/dev/null || echo "no apt-get here: packages are taken as they are" >&2
system_packages
cargo_tool just "$just_version"
[ $# != 0 ] || set -- ci
case "$1" in ci | deny | advisories) cargo_tool cargo-deny "$deny_version" ;; esac
if [ "$1" = ci ]; then
  # Needed after an hour of other work on a machine that has nothing yet. That work is compiling; this is waiting.
  (cd e2e/cluster/programs && GOFLAGS='' CGO_ENABLED=0 go list -deps ./... tool >/dev/null 2>&1 </dev/null &)
fi

step "just $*"
exec "$tools/bin/just" "$@" </dev/null
