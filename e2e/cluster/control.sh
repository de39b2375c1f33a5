#!/bin/sh
# The machine of the control plane: etcd, the API server and what works through it.
set -eu
. "$FOLDER/common.sh"

own_run_and_sys
echo control >/proc/sys/kernel/hostname
# The bridge between the nodes is here; what it carries is none of this machine's rules' business.
bridged=/proc/sys/net/bridge/bridge-nf-call-iptables
[ ! -e $bridged ] || echo 0 >$bridged
await "$FOLDER/network"

# Its data is thrown away with the cluster: no need to wait for the disk.
keep etcd "$PROGRAMS/etcd" --name control --data-dir "$FOLDER/etcd" --unsafe-no-fsync \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380

# Of several, which share one port, each connection gets one that lives.
suffix= number=1
for address in $API_ADDRESSES; do
  keep "kube-apiserver$suffix" "$PROGRAMS/kube-apiserver" \
    --etcd-servers http://127.0.0.1:2379 \
    --bind-address 0.0.0.0 --secure-port 6443 --permit-port-sharing --advertise-address "$address" \
    --service-cluster-ip-range "$SERVICES" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --client-ca-file "$PKI/ca.crt" \
    --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$PKI/apiserver-kubelet.crt" --kubelet-client-key "$PKI/apiserver-kubelet.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$PKI/service-accounts.pub" --service-account-signing-key-file "$PKI/service-accounts.key" \
    --requestheader-client-ca-file "$PKI/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-extra-headers-prefix X-Remote-Extra- --requestheader-group-headers X-Remote-Group \
    --requestheader-username-headers X-Remote-User \
    --proxy-client-cert-file "$PKI/front-proxy-client.crt" --proxy-client-key-file "$PKI/front-proxy-client.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --enable-aggregator-routing \
    --audit-policy-file "$FOLDER/audit-policy.yaml" --audit-log-path "$FOLDER/audit$suffix.log" \
    --audit-log-maxsize 200 --audit-log-maxbackup 2
  number=$((number + 1))
  suffix=-$number
done

await "$FOLDER/api"

keep kube-controller-manager "$PROGRAMS/kube-controller-manager" \
  --kubeconfig "$FOLDER/controller-manager.conf" \
  --authentication-kubeconfig "$FOLDER/controller-manager.conf" \
  --authorization-kubeconfig "$FOLDER/controller-manager.conf" \
  --service-account-private-key-file "$PKI/service-accounts.key" --use-service-account-credentials \
  --root-ca-file "$PKI/ca.crt" --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
  --cluster-cidr "$PODS" --service-cluster-ip-range "$SERVICES" --bind-address 127.0.0.1 --leader-elect=false \
  --flex-volume-plugin-dir "$FOLDER/volume-plugins" --node-monitor-period 2s --node-monitor-grace-period 20s

keep kube-scheduler "$PROGRAMS/kube-scheduler" \
  --kubeconfig "$FOLDER/scheduler.conf" \
  --authentication-kubeconfig "$FOLDER/scheduler.conf" --authorization-kubeconfig "$FOLDER/scheduler.conf" \
  --bind-address 127.0.0.1 --leader-elect=false

keep local-volumes "$PROGRAMS/local-volumes" \
  --kubeconfig "$FOLDER/volumes.conf" --nodes "$NODES" --disk lib/volumes --path /var/lib/volumes

while :; do wait; done
