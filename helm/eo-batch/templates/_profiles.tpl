{{/* Placement profiles, as eo_batch/core/placement.py reads them. */}}

{{/* Environment of all pods, as a map. Takes the root. */}}
{{- define "eo-batch.env" -}}
{{- $env := dict -}}
{{- with .Values.store.region -}}{{- $_ := set $env "AWS_REGION" . -}}{{- end -}}
{{- with .Values.store.endpoint -}}{{- $_ := set $env "AWS_ENDPOINT_URL_S3" . -}}{{- end -}}
{{- with .Values.store.azureAccount -}}{{- $_ := set $env "AZURE_STORAGE_ACCOUNT_NAME" . -}}{{- end -}}
{{- toYaml (merge (deepCopy (.Values.env | default dict)) $env) -}}
{{- end }}

{{/* One pool of the profiles. Takes a dict: root, name, pool, runner. Queues do not admit the workers of Dask. */}}
{{- define "eo-batch.pool" -}}
{{- $values := .root.Values -}}
{{- $own := include "eo-batch.clusterName" (dict "root" .root "pool" .name) -}}
{{- $selector := deepCopy (.pool.nodeSelector | default dict) -}}
{{- if and $values.karpenter.enabled (hasKey $values.karpenter.nodePools .name) -}}
{{- $selector = merge $selector (dict "eo-batch.io/pool" .name) -}}
{{- end -}}
{{- $class := .pool.priority_class -}}
{{- if and (not $class) $values.priorityClasses.enabled (hasKey $values.priorityClasses.values .name) -}}
{{- $class = $own -}}
{{- end -}}
{{- $queue := .pool.queue -}}
{{- if and (not $queue) $values.kueue.enabled (hasKey $values.kueue.quotas .name) -}}
{{- $queue = .name -}}
{{- end -}}
{{- with $selector }}
node_selector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pool.avoid_labels }}
avoid_labels: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if hasKey .pool "gang_topology" }}
gang_topology: {{ .pool.gang_topology | default "" | quote }}
{{- end }}
{{- with .pool.tolerations }}
tolerations:
  {{- range . }}
  - {{- merge (deepCopy .) (dict "operator" "Exists") | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
cpu: {{ .pool.cpu | toString | quote }}
memory_mb: {{ .pool.memory_mb | int }}
gpus: {{ .pool.gpus | int }}
{{- with $class }}
priority_class: {{ . | quote }}
{{- end }}
{{- if and $queue (ne .runner "dask") }}
queue: {{ $queue | quote }}
{{- end }}
{{- end }}

{{/* A profile. Takes a dict: root, runner. */}}
{{- define "eo-batch.profile" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
runner: {{ .runner }}
store: {{ include "eo-batch.store" $root | quote }}
cluster:
  namespace: {{ $root.Release.Namespace | quote }}
  service_account: {{ $values.serviceAccounts.runner.name | quote }}
  image: {{ include "eo-batch.image" $root | quote }}
  {{- with $values.image.gpu }}
  gpu_image: {{ . | quote }}
  {{- end }}
  pull_policy: {{ $values.image.pullPolicy }}
  {{- with include "eo-batch.env" $root | fromYaml }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.store.existingSecret }}
  secrets: [{{ . | quote }}]
  {{- end }}
  {{- with $values.serviceAccounts.runner.podLabels }}
  pod_labels: {{- toYaml . | nindent 4 }}
  {{- end }}
  deadline_s: {{ $values.deadlineSeconds | int }}
  ttl_s: {{ $values.ttlSeconds | int }}
  lease_s: {{ $values.leaseSeconds | int }}
{{- if eq .runner "argo" }}
argo:
  url: {{ $values.argo.serverUrl | quote }}
  {{- with $values.argo.uiUrl }}
  ui: {{ . | quote }}
  {{- end }}
  service_account: {{ $values.serviceAccounts.workflow.name | quote }}
  client_account: {{ $values.serviceAccounts.driver.name | quote }}
  verify_tls: {{ $values.argo.verifyTls }}
{{- end }}
{{- if eq .runner "dask" }}
dask:
  workers_min: {{ $values.dask.workers_min | int }}
  workers_max: {{ $values.dask.workers_max | int }}
  pool: {{ $values.dask.pool | quote }}
{{- end }}
pools:
  {{- range $name := keys $values.pools | sortAlpha }}
  {{ $name }}: {{- include "eo-batch.pool" (dict "root" $root "name" $name "pool" (get $values.pools $name) "runner" $.runner) | trim | nindent 4 }}
  {{- end }}
stages:
  {{- range $stage := keys $values.stages | sortAlpha }}
  {{- with get $values.stages $stage }}
  {{ $stage }}:
    pool: {{ .pool | quote }}
    shards_per_pod: {{ .shards_per_pod | int }}
    parallelism: {{ .parallelism | int }}
    nodes: {{ .nodes | int }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* File names and texts of all profiles, as the data of a ConfigMap. Takes the root. */}}
{{- define "eo-batch.profiles" -}}
kubernetes.yaml: |
  {{- include "eo-batch.profile" (dict "root" . "runner" "kubernetes") | nindent 2 }}
{{- if .Values.argo.enabled }}
argo.yaml: |
  {{- include "eo-batch.profile" (dict "root" . "runner" "argo") | nindent 2 }}
{{- end }}
{{- if .Values.dask.enabled }}
dask.yaml: |
  {{- include "eo-batch.profile" (dict "root" . "runner" "dask") | nindent 2 }}
{{- end }}
{{- end }}
