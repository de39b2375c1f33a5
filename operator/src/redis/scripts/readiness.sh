# Ready is a primary that has slots, and a replica that has its primary's data.
answer=$(ask -h "$own" PING) || true
case $answer in
  *LOADING*) echo "loading" && exit 1 ;;
  *PONG*) ;;
  *) echo "$answer" && exit 1 ;;
esac

replication=$(ask -h "$own" INFO replication)
case $replication in
  *role:master*)
    [ -n "$cluster" ] || exit 0
    place=$(ask -h "$own" CLUSTER NODES)
    while read -r _ _ flags _ _ _ _ _ slots; do
      case $flags in
        *myself*) [ -z "$slots" ] || exit 0 ;;
      esac
    done <<EOF
$place
EOF
    echo "no place in the cluster yet"
    exit 1
    ;;
esac
case $replication in
  *master_link_status:up*) ;;
  *) echo "no link to the primary" && exit 1 ;;
esac
case $replication in
  *master_sync_in_progress:1*) echo "syncing" && exit 1 ;;
esac
exit 0
