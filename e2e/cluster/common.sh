# What the first processes of the control plane's and the nodes' namespaces share. They are init there: they start the
# daemons, start again what ends, and reap what is left to them. The harness made the namespaces and sets the
# environment; it kills them without a word, as a power failure would.

# keep NAME COMMAND...: runs a daemon for as long as this machine is up, except while the file held/NAME is there. The
# file running/NAME has its process's number; that it is gone says that the daemon is, and that the hold was seen.
keep() {
  name=$1
  shift
  while :; do
    echo 0 >"$FOLDER/running/$name"
    if [ -e "$FOLDER/held/$name" ]; then
      rm "$FOLDER/running/$name"
      while [ -e "$FOLDER/held/$name" ]; do sleep 0.1; done
      continue
    fi
    "$@" >>"$FOLDER/logs/$name.log" 2>&1 </dev/null &
    echo $! >"$FOLDER/running/$name"
    wait $! || true
    echo "$name ended; it is started again" >>"$FOLDER/logs/$name.log"
    sleep 1
  done &
}

# await FILE: waits until the harness, or a daemon, has made it.
await() {
  while [ ! -e "$1" ]; do sleep 0.05; done
}

# /run is this machine's own, and the links seen below /sys are; the control groups stay as they are.
own_run_and_sys() {
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "$FOLDER/cgroup"
  mount --rbind /sys/fs/cgroup "$FOLDER/cgroup"
  mount -t sysfs sysfs /sys
  mount --move "$FOLDER/cgroup" /sys/fs/cgroup
}

mkdir -p "$FOLDER/logs"
