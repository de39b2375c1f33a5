{{- /*
What the operator does in the namespaces that it watches, and nothing more. operator/tests/chart.rs holds it against what
the operator asks for.
*/ -}}
{{- define "sluice.rules" -}}
- apiGroups: [sluice.dev]
  resources: [gateways, applications]
  verbs: [list, watch]
- apiGroups: [sluice.dev]
  resources: [gateways/status, applications/status]
  verbs: [patch]
# What belongs to a Gateway holds up its deletion; some platforms (OpenShift) ask for this then.
- apiGroups: [sluice.dev]
  resources: [gateways/finalizers]
  verbs: [update]
# Kept as they should be for each Gateway. Secrets and ConfigMaps of users that a Gateway refers to are read as well.
- apiGroups: [""]
  resources: [configmaps, secrets, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions, deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# OpenShift asks for this of who writes addresses of pods itself.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
# Kubernetes makes them for a Service with a selector, and leaves them when the selector goes.
- apiGroups: [""]
  resources: [endpoints]
  verbs: [delete]
# Pods are told of a new configuration by an annotation, and those of Redis are replaced one by one.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
