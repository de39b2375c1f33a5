#!/usr/bin/env bash
# Builds the monitor's page into target/page, from where Rust builds take it into their programs. A page that comes out as before is
# left alone, so that nothing is compiled again for it.
set -euo pipefail
cd "$(dirname "$0")"

for tool in node npm; do
  command -v "$tool" >/dev/null || { echo "the page needs '$tool'; ./test.sh installs it" >&2; exit 1; }
done

wanted=$(sha256sum package.json package-lock.json)
if [ "$(cat node_modules/.sluice 2>/dev/null)" != "$wanted" ]; then
  npm ci --no-audit --no-fund --silent
  echo "$wanted" >node_modules/.sluice
fi
npm run --silent build -- ../target/.page
if ! diff --recursive --brief ../target/.page ../target/page >/dev/null 2>&1; then
  rm -rf ../target/page
  mv ../target/.page ../target/page
fi
rm -rf ../target/.page
