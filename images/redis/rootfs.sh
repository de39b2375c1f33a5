#!/usr/bin/env bash
# Assembles the files of the Redis image in an empty folder: redis-server and redis-cli with the libraries they load, and
# busybox as the shell for probes and bootstrap scripts.
set -euo pipefail

root=$1

need() {
  command -v "$1" || { echo "the Redis image needs '$1'; ./test.sh installs it" >&2; exit 1; }
}

for name in redis-server redis-cli; do
  program=$(need "$name")
  install -D -m 755 "$(readlink -f "$program")" "$root/usr/bin/$name"
  ldd "$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' | sort -u | while read -r library; do
    install -D -m 755 "$(readlink -f "$library")" "$root$library"
  done
done

busybox=$(need busybox)
install -D -m 755 "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
mkdir -p "$root/data" "$root/etc" "$root/proc" "$root/sys" "$root/dev"
