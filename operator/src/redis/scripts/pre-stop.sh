# A primary that is to stop hands over to the replica that is furthest, and waits until it has, 20 s at most. For when
# nobody has planned the stop: an evicted pod, a drained node.
[ -n "$cluster" ] || exit 0

carriage_return=$(printf '\r')

is_primary() {
  case $(ask -h "$own" INFO replication) in
    *role:master*) return 0 ;;
  esac
  return 1
}

# The address of the online replica with the highest offset.
best_replica() {
  best='' most=-1
  while read -r line; do
    line=${line%"$carriage_return"}
    case $line in
      slave[0-9]*:ip=*,state=online,*) ;;
      *) continue ;;
    esac
    ip=${line#*ip=} ip=${ip%%,*}
    offset=${line#*offset=} offset=${offset%%,*}
    if [ "$offset" -gt "$most" ]; then
      best=$ip most=$offset
    fi
  done <<EOF
$(ask -h "$own" INFO replication)
EOF
  echo "$best"
}

waited=0
while [ "$waited" -lt 20 ] && is_primary; do
  # The servers give a planned failover up after five seconds.
  if [ $((waited % 6)) -eq 0 ]; then
    replica=$(best_replica)
    [ -n "$replica" ] || exit 0
    ask -h "$replica" CLUSTER FAILOVER
  fi
  sleep 1
  waited=$((waited + 1))
done
exit 0
