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

# Whether nodes.conf says that this server has slots or is a replica.
placed=
owner=
if [ -e nodes.conf ]; then
  while read -r _ _ flags _ _ _ _ _ slots; do
    case $flags in
      *myself*slave*) placed=1 ;;
      *myself*) [ -z "$slots" ] || placed=1 owner=1 ;;
    esac
  done <nodes.conf
fi

if [ -n "$persistent" ] && [ -n "$placed" ] && [ -s appendonlydir/appendonly.aof.manifest ]; then
  users=users.acl
else
  users=users-sealed.acl
  rm -f nodes.conf
  if [ -n "$owner" ]; then
    # Its replicas have the data: they elect one of them when it stays away for long enough.
    echo "the data of this server is gone; waiting ${election_s} s for a replica to take its place"
    trap 'exit 0' TERM INT
    sleep "$election_s" &
    wait $!
    trap - TERM INT
  fi
fi

set -- --aclfile "$secret_dir/$users" "$@"
if [ -n "${POD_IP:-}" ]; then
  set -- --cluster-announce-ip "$POD_IP" --replica-announce-ip "$POD_IP" "$@"
fi
if [ -n "$host_suffix" ]; then
  set -- --cluster-announce-hostname "$POD_NAME$host_suffix" "$@"
fi
exec "$server" "$config_dir/redis.conf" "$@"
