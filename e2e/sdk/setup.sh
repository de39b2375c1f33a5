#!/usr/bin/env bash
# Prepares the SDKs that the end-to-end tests use, in the directory given: a Python environment (venv), the
# unpacked source of the Python SDK with its own tests (python-suite), and the Node packages (node).
# Does nothing when the directory is up to date.
set -euo pipefail

directory=$1
here=$(cd "$(dirname "$0")" && pwd)

for tool in python3 node npm openssl sha256sum tar flock; do
  command -v "$tool" >/dev/null || { echo "the end-to-end tests need '$tool'; ./test.sh installs it" >&2; exit 1; }
done

mkdir -p "$directory"
exec 9>"$directory/lock"
flock 9

wanted=$(cat "$here/setup.sh" "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" | sha256sum)
if [ "$(cat "$directory/ready" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
rm -rf "$directory/ready" "$directory/venv" "$directory/python-suite" "$directory/node"

python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"

version=$(sed -n 's/^centrifuge-python==//p' "$here/requirements.txt")
mkdir "$directory/python-suite"
"$directory/venv/bin/pip" download --quiet --no-binary :all: --no-deps \
  --dest "$directory/python-suite" "centrifuge-python==$version"
tar --extract --gzip --strip-components=1 --directory "$directory/python-suite" \
  --file "$directory/python-suite/centrifuge_python-$version.tar.gz"

mkdir "$directory/node"
cp "$here/package.json" "$here/package-lock.json" "$directory/node/"
npm ci --prefix "$directory/node" --no-audit --no-fund --silent

echo "$wanted" >"$directory/ready"
