{{/* Who may speak to whom. */}}

{{/* Ports that all pods may reach anywhere: catalogues, assets, and the store's own. Takes the root. */}}
{{- define "eo-batch.egressPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicies.egressPorts -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- with .Values.store.endpoint -}}{{- $ports = append $ports (include "eo-batch.port" . | int) -}}{{- end -}}
{{- range $ports | uniq }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- end }}

{{/* Where clouds hand out the identities of pods: EKS Pod Identity, and GKE's metadata server. Azure and IRSA use HTTPS.
The metadata of AWS's nodes stays out of reach: it hands out the node's identity. Takes the root. */}}
{{- define "eo-batch.identityEgress" -}}
{{- if hasPrefix "s3://" (include "eo-batch.store" .) }}
- to: [{ipBlock: {cidr: 169.254.170.23/32}}, {ipBlock: {cidr: "fd00:ec2::23/128"}}]
  ports: [{protocol: TCP, port: 80}]
{{- else if hasPrefix "gs://" (include "eo-batch.store" .) }}
- to: [{ipBlock: {cidr: 169.254.169.254/32}}]
  ports: [{protocol: TCP, port: 80}]
- to: [{ipBlock: {cidr: 169.254.169.252/32}}]
  ports: [{protocol: TCP, port: 988}]
{{- end }}
{{- end }}

{{/* Pods that ask the Kubernetes API, by label selector. Takes the root. */}}
{{- define "eo-batch.kubernetesClients" -}}
driver: {matchLabels: {eo-batch.io/account: driver}}
{{- if .Values.sweeper.enabled }}
sweeper: {matchLabels: {eo-batch.io/account: sweeper}}
{{- end }}
{{- if .Values.argo.enabled }}
workflow: {matchExpressions: [{key: workflows.argoproj.io/workflow, operator: Exists}]}
{{- end }}
{{- end }}

{{/* URLs of the servers that only drivers speak to. Takes the root. */}}
{{- define "eo-batch.driverServers" -}}
{{- $urls := list -}}
{{- if .Values.argo.enabled -}}{{- $urls = append $urls .Values.argo.serverUrl -}}{{- end -}}
{{- if .Values.prefect.enabled -}}{{- $urls = append $urls .Values.prefect.apiUrl -}}{{- end -}}
{{- toYaml $urls -}}
{{- end }}
