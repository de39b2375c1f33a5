#!/usr/bin/env bash
# Builds the images as OCI archives under target/images: dataplane.tar, operator.tar, and redis.tar for the tests. With --release as one
# would use them; else with what the dev profile makes, for the tests. No daemon, no registry, nothing outside of target/.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=dev folder=debug strip=--strip-all
case "$*" in
  '') ;;
  --release) profile=release folder=release strip=--strip-debug ;;
  *) echo "usage: images/build.sh [--release]" >&2; exit 2 ;;
esac

for tool in buildah musl-gcc strip; do
  command -v "$tool" >/dev/null || { echo "the images need '$tool'; ./test.sh installs it" >&2; exit 1; }
done

certificates=/etc/ssl/certs/ca-certificates.crt
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)
target=$(uname -m)-unknown-linux-musl
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$build/images
mkdir -p "$out"
storage=$(mktemp -d "$out/.storage-XXXXXX")
trap 'rm -rf "$storage"' EXIT

# image NAME CONTEXT FILE [ARCHIVE]: one image from a folder.
image() {
  local name=$1 context=$2 file=$3 archive=$out/${4:-$(basename "$2")}.tar store
  store=(buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs)
  # The same files make the same image.
  "${store[@]}" build --quiet --isolation chroot --layers=false --timestamp 0 \
    --build-arg "VERSION=$version" --file "$file" --tag "$name" "$context" >/dev/null
  rm -f "$out/.partial.tar"
  "${store[@]}" push --quiet "$name" "oci-archive:$out/.partial.tar:$name"
  mv "$out/.partial.tar" "$archive"
  echo "$archive is $name"
}

rustup target list --installed | grep -qx "$target" || rustup target add "$target"
# The C parts of libraries are compiled for it as well.
export "CC_${target//-/_}=musl-gcc"
cargo build --locked --profile "$profile" --target "$target" \
  --package sluice-dataplane --bin sluice --package sluice-operator --bin sluice-operator

# program IMAGE BINARY: the image of one static program.
program() {
  local context=$out/$1
  rm -rf "$context"
  mkdir -p "$context"
  strip "$strip" -o "$context/$2" "$build/$target/$folder/$2"
  install -m 644 "$certificates" "$context/ca-certificates.crt"
  image "localhost/sluice/$1:$version" "$context" "images/$1/Containerfile"
}
program dataplane sluice
program operator sluice-operator

rm -rf "$out/redis"
mkdir -p "$out/redis/rootfs"
images/redis/rootfs.sh "$out/redis/rootfs"
image localhost/sluice-e2e/redis:1 "$out/redis" images/redis/Containerfile
# The same once more, for tests that change from one to the other.
image localhost/sluice-e2e/redis:2 "$out/redis" images/redis/Containerfile redis-2
