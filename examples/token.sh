#!/usr/bin/env bash
# Signs a connection token for examples/relay.yaml: examples/token.sh USER ACCOUNT
# For trying only: in real life your backend signs the tokens with a secret of your own.
set -euo pipefail
secret=${SECRET:-only-for-trying-tokens}
user=${1:?usage: token.sh USER ACCOUNT}
account=${2:?usage: token.sh USER ACCOUNT}
part() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
body=$(printf '{"alg":"HS256"}' | part).$(printf '{"sub":"%s","account":"%s"}' "$user" "$account" | part)
printf '%s.%s\n' "$body" "$(printf %s "$body" | openssl dgst -sha256 -hmac "$secret" -binary | part)"
