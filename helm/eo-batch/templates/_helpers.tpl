{{/* Names and labels. One release in a namespace; what concerns the whole cluster is named after the namespace. */}}

{{/* Labels of the chart's objects. Takes the root. */}}
{{- define "eo-batch.labels" -}}
app.kubernetes.io/name: eo-batch
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels by which a part's own pods are found. Takes a dict: root, component, account (a key of serviceAccounts). */}}
{{- define "eo-batch.podLabels" -}}
app.kubernetes.io/name: eo-batch
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
eo-batch.io/account: {{ .account }}
{{- with (get .root.Values.serviceAccounts .account).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name of something of the whole cluster that belongs to a pool. Takes a dict: root, pool. */}}
{{- define "eo-batch.clusterName" -}}
{{ printf "%s-%s" .root.Release.Namespace .pool }}
{{- end }}

{{/* Image of the pods that need no tensors. Takes the root. */}}
{{- define "eo-batch.image" -}}
{{ required "image.cpu is missing: name the image without torch, with its tag or digest" .Values.image.cpu }}
{{- end }}

{{/* The store's URL. Takes the root. */}}
{{- define "eo-batch.store" -}}
{{ required "store.url is missing: name where runs are kept, such as s3://bucket/prefix" .Values.store.url }}
{{- end }}

{{/* Port of a URL, given or by its scheme. Takes the URL. */}}
{{- define "eo-batch.port" -}}
{{- $parsed := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $parsed.host | trimPrefix ":" -}}
{{- $named | default (ternary "80" "443" (eq $parsed.scheme "http")) -}}
{{- end }}

{{/* Rights of a service account within the namespace: a Role, and who has it. Takes a dict: root, account, rules. */}}
{{- define "eo-batch.rights" -}}
{{- $name := (get .root.Values.serviceAccounts .account).name -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "eo-batch.labels" .root | nindent 4 }}
rules: {{- toYaml .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "eo-batch.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
