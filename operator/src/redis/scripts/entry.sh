# Starts the server under the name and address of its pod.
#
# A server's name in the cluster is kept in nodes.conf, and replicas take whoever has the name, or just the address, for
# their primary. So the name is kept only beside the data that it stands for; without it the server starts as a new one,
# and lets nobody replicate from it until the operator gives it a place.
set -eu
umask 077
cd "$data_dir"
server=$(command -v valkey-server || command -v redis-server)

if [ -z "$cluster" ]; then
  exec "$server" "$config_dir/redis.conf" "$@"
fi

# What nodes.conf says of this server: whether it has slots or is a replica, and where its own replicas are.
placed=
owner=
replicas=
if [ -e nodes.conf ]; then
  while read -r id _ flags _ _ _ _ _ slots; do
    case $flags in
      *myself*slave*) placed=1 ;;
      *myself*) [ -z "$slots" ] || placed=1 owner=$id ;;
    esac
  done <nodes.conf
  while read -r _ place flags primary _; do
    case $flags in
      *slave*)
        address=${place%%@*}
        [ -z "$owner" ] || [ "$primary" != "$owner" ] || replicas="$replicas ${address%:*}"
        ;;
    esac
  done <nodes.conf
fi

# Whether a replica that had this server's data has not taken its place yet. One that was started since does not count:
# it will not be elected.
replica_waits() {
  found=
  for replica in $replicas; do
    case $(ask -h "$replica" INFO replication) in
      *role:master*) return 1 ;;
      *master_link_down_since_seconds:-1*) ;;
      *role:slave*) found=1 ;;
    esac
  done
  [ -n "$found" ]
}

# A primary that is back so soon that nobody has missed it may lack what it had acknowledged last, or all of its data.
# Its replicas have that, so one of them goes first.
trap 'exit 0' TERM INT
waited=0
while [ "$waited" -lt "$election_s" ] && replica_waits; do
  [ "$waited" -gt 0 ] || echo "waiting for a replica to take the place of this server, $election_s s at most"
  sleep 1 &
  wait $!
  waited=$((waited + 1))
done
trap - TERM INT

if [ -n "$persistent" ] && [ -n "$placed" ] && [ -s appendonlydir/appendonly.aof.manifest ]; then
  users=users.acl
else
  users=users-sealed.acl
  rm -f nodes.conf
fi

set -- --aclfile "$secret_dir/$users" "$@"
if [ -n "${POD_IP:-}" ]; then
  set -- --cluster-announce-ip "$POD_IP" --replica-announce-ip "$POD_IP" "$@"
fi
if [ -n "$host_suffix" ]; then
  set -- --cluster-announce-hostname "$POD_NAME$host_suffix" "$@"
fi
exec "$server" "$config_dir/redis.conf" "$@"
