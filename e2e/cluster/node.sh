#!/bin/sh
# The machine of a node: containerd, kubelet and kube-proxy. Its folder `lib` is its /var/lib and survives a restart, as
# does `log`; what is mounted or in /run does not.
set -eu
. "$FOLDER/common.sh"

own_run_and_sys
mkdir -p "$FOLDER/log" "$FOLDER/lib/volumes" "$FOLDER/lib/imported"
mount --bind "$FOLDER/lib" /var/lib
mount --bind "$FOLDER/log" /var/log
mount --make-rshared /
echo "$NODE" >/proc/sys/kernel/hostname
await "$FOLDER/network"
echo 1 >/proc/sys/net/ipv4/ip_forward

export PATH="$PROGRAMS:$PATH"
keep containerd containerd --config "$FOLDER/etc/containerd.toml"
await /run/containerd/containerd.sock
until ctr version >/dev/null 2>&1; do sleep 0.05; done

# In the order in which they were loaded: a later image of the same name replaces an earlier one.
for archive in "$IMAGES"/*.tar; do
  mark=/var/lib/imported/$(basename "$archive")
  [ ! -e "$mark" ] || continue
  ctr --namespace k8s.io images import "$archive" >>"$FOLDER/logs/images.log" 2>&1 && : >"$mark"
done

await "$FOLDER/api"
keep kubelet kubelet --config "$FOLDER/etc/kubelet.json" --kubeconfig "$FOLDER/etc/kubelet.conf" \
  --hostname-override "$NODE" --node-ip "$ADDRESS" \
  --node-labels "topology.kubernetes.io/region=local,topology.kubernetes.io/zone=$NODE"

# The machine's limits of connection tracking are not a node's to change.
keep kube-proxy kube-proxy --kubeconfig "$FOLDER/etc/proxy.conf" --hostname-override "$NODE" \
  --proxy-mode nftables --cluster-cidr "$PODS" --oom-score-adj 0 \
  --conntrack-max-per-core 0 --conntrack-min 0 \
  --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s

while :; do wait; done
