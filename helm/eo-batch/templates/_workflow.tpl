{{/* The graph of stages as Argo runs it: the same as `eo_batch.runners.workflow.workflow_template` makes of the profile
argo.yaml, which a test compares with it. Double braces within quotes are Argo's own. */}}

{{/* The pool of a stage, as in the profiles. Takes a dict: root, stage. */}}
{{- define "eo-batch.stagePool" -}}
{{- $placed := get .root.Values.stages .stage | default .root.Values.stages.default -}}
{{- include "eo-batch.pool" (dict "root" .root "name" $placed.pool "pool" (get .root.Values.pools $placed.pool) "runner" "argo") -}}
{{- end }}

{{/* Where a stage's pods are placed. Takes a dict: root, stage. */}}
{{- define "eo-batch.stagePlace" -}}
{{- $pool := include "eo-batch.stagePool" . | fromYaml -}}
{{- with $pool.avoid_labels }}
affinity:
  nodeAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        preference:
          matchExpressions:
            {{- range . }}
            - {key: {{ . | quote }}, operator: DoesNotExist}
            {{- end }}
{{- end }}
{{- with $pool.node_selector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.priority_class }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Argo's own containers, which its controller gives neither resources nor a security context by default. */}}
{{- define "eo-batch.executor" -}}
"resources": {"requests": {"cpu": "10m", "memory": "64M"}, "limits": {"memory": "512M"}}, "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}
{{- end }}

{{/* Which tries are followed by another one. Takes a dict: limit, expression. */}}
{{- define "eo-batch.retry" -}}
limit: {{ .limit | quote }}
retryPolicy: Always
expression: {{ .expression | quote }}
backoff: {duration: 5s, factor: "2", cap: 60s}
{{- end }}

{{/* The pod of a stage of one shard. Takes a dict: root, stage, next (stages of which it says what is to be done). */}}
{{- define "eo-batch.step" -}}
{{- $values := .root.Values -}}
{{- $pool := include "eo-batch.stagePool" . | fromYaml -}}
{{- $gpus := int $pool.gpus -}}
{{- $memory := int $pool.memory_mb -}}
{{- $limit := add (div (mul $memory 5) 4) (ternary 1024 0 (gt $gpus 0)) -}}
{{- $image := include "eo-batch.image" .root -}}
{{- if eq .stage "probe" -}}{{- $image = $values.image.gpu | default $image -}}{{- end -}}
name: {{ .stage }}
metadata:
  labels:
    app.kubernetes.io/component: {{ .stage }}
    eo-batch.io/stage: {{ .stage }}
    eo-batch.io/work: "{{`{{workflow.name}}`}}"
    {{- with $values.serviceAccounts.runner.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations: {{- include "eo-batch.leaveAlone" . | nindent 4 }}
container:
  image: {{ $image | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  command: [eo-batch]
  args:
    - step
    - {{ .stage }}
    - "--work={{`{{workflow.uid}}`}}"
    {{- range list "run" "store" "spec" "spec-at" "until" "refresh" "profile" "lease" "identity" }}
    - "--{{ . }}={{ printf "{{workflow.parameters.%s}}" . }}"
    {{- end }}
    {{- with .next }}
    - "--next={{ join "," . }}"
    - --outputs=/tmp/outputs
    {{- end }}
  env:
    {{- $env := include "eo-batch.env" .root | fromYaml }}
    - {name: HOME, value: {{ get $env "HOME" | default "/tmp" | quote }}}
    - {name: OMP_NUM_THREADS, value: {{ get $env "OMP_NUM_THREADS" | default "1" | quote }}}
    {{- range $name, $value := omit $env "HOME" "OMP_NUM_THREADS" }}
    - {name: {{ $name }}, value: {{ $value | quote }}}
    {{- end }}
  envFrom:
    {{- with $values.store.existingSecret }}
    - secretRef: {name: {{ . | quote }}}
    {{- else }} []
    {{- end }}
  resources:
    requests: {cpu: {{ $pool.cpu | quote }}, memory: {{ $memory }}M, ephemeral-storage: 256M}
    limits:
      memory: {{ $limit }}M
      ephemeral-storage: 2048M
      {{- if $gpus }}
      nvidia.com/gpu: {{ $gpus | quote }}
      {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext: {{- include "eo-batch.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- if $gpus }}
    - {name: shared-memory, mountPath: /dev/shm}
    {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 2048M}
  {{- if $gpus }}
  - name: shared-memory
    emptyDir: {medium: Memory, sizeLimit: 1024M}
  {{- end }}
{{ include "eo-batch.stagePlace" . | trim }}
{{- with .next }}
outputs:
  parameters:
    {{- range $stage := . }}
    {{- range $what := ternary (list "slices" "manifest" "success") (list "slices") (has $stage (list "chips" "pretrain" "embed")) }}
    - name: {{ $stage }}-{{ $what }}
      valueFrom: {path: /tmp/outputs/{{ $stage }}-{{ $what }}}
      {{- if ne $what "slices" }}
      globalName: {{ $stage }}-{{ $what }}
      {{- end }}
    {{- end }}
    {{- end }}
{{- end }}
activeDeadlineSeconds: {{ $values.deadlineSeconds | int }}
# A shard that failed for good, wrong words, and a command that is not there fail again.
retryStrategy: {{- include "eo-batch.retry" (dict "limit" 12 "expression" "!(asInt(lastRetry.exitCode) in [10, 2, 126, 127])") | nindent 2 }}
podSpecPatch: {{ printf `{"enableServiceLinks": false, "initContainers": [{"name": "init", %s}], "containers": [{"name": "wait", %s}]}` (include "eo-batch.executor" .) (include "eo-batch.executor" .) | squote }}
{{- end }}

{{/* The pod that creates the object of a stage of many shards, and waits for its end. Takes a dict: root, stage. */}}
{{- define "eo-batch.fanOut" -}}
name: {{ .stage }}
metadata:
  labels:
    app.kubernetes.io/component: {{ .stage }}-watch
    {{- with .root.Values.serviceAccounts.runner.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations: {{- include "eo-batch.leaveAlone" . | nindent 4 }}
resource:
  action: apply
  setOwnerReference: true
  manifest: {{ printf "{{workflow.outputs.parameters.%s-manifest}}" .stage | quote }}
  successCondition: {{ printf "{{workflow.outputs.parameters.%s-success}}" .stage | quote }}
  # A Job has at most three conditions before the one that says that it failed.
  failureCondition: >-
    status.terminalState == Failed, status.conditions.0.type == Failed, status.conditions.1.type == Failed,
    status.conditions.2.type == Failed, status.conditions.3.type == Failed
{{ include "eo-batch.stagePlace" (dict "root" .root "stage" "plan") | trim }}
activeDeadlineSeconds: {{ add (int .root.Values.deadlineSeconds) 600 }}
retryStrategy:
  {{- $hopeless := list }}
  {{- range list "failure condition" "forbidden" "is invalid" "no matches for kind" "denied the request" }}
  {{- $hopeless = append $hopeless (printf "lastRetry.message contains '%s'" .) }}
  {{- end }}
  {{- include "eo-batch.retry" (dict "limit" 60 "expression" (printf "!(%s)" (join " || " $hopeless))) | nindent 2 }}
podSpecPatch: {{ printf `{"enableServiceLinks": false, "containers": [{"name": "main", %s}]}` (include "eo-batch.executor" .) | squote }}
{{- end }}

{{/* The WorkflowTemplate's spec. Takes the root. */}}
{{- define "eo-batch.workflow" -}}
{{- $deadline := int .Values.deadlineSeconds -}}
serviceAccountName: {{ .Values.serviceAccounts.workflow.name | quote }}
securityContext: {{- include "eo-batch.podSecurity" . | nindent 2 }}
podMetadata:
  labels:
    app.kubernetes.io/name: eo-batch
    app.kubernetes.io/managed-by: eo-batch
    eo-batch.io/run: {{ "{{=sprig.trimAll('._-', workflow.parameters.run)}}" | quote }}
    eo-batch.io/lease: {{ "{{workflow.parameters.lease}}" | quote }}
activeDeadlineSeconds: {{ mul 7 (add $deadline 600) }}
ttlStrategy: {secondsAfterCompletion: {{ .Values.ttlSeconds | int }}}
podGC: {strategy: OnPodSuccess}
archiveLogs: false
entrypoint: run
arguments:
  parameters:
    - name: run
      description: "Name of the run: that of its spec."
    - name: store
      description: "Store of the run: s3://bucket/prefix, gs://… or az://…"
      value: {{ include "eo-batch.store" . | quote }}
    - name: spec
      description: "Run spec, YAML; it is submitted. Empty: what was submitted last under the run's name."
      value: ""
    - name: spec-at
      description: "Key of a run spec in the store, instead."
      value: ""
    - name: until
      description: "Last stage; empty is all of them."
      value: ""
    - name: refresh
      description: "Whether chips whose scenes changed are made again: true or false."
      value: "false"
    - name: profile
      description: "Where the pods of fan-outs run, YAML. Steps run where this template was rendered for."
      value: |
        {{- include "eo-batch.profile" (dict "root" . "runner" "argo") | nindent 8 }}
    - name: lease
      description: "Name of the Lease that owns the workflow."
      value: ""
    - name: identity
      description: "What the run's stages are, as who submits it sees it; pods of another version refuse the run."
      value: ""
templates:
  - name: run
    dag:
      tasks:
        - {name: plan, template: plan}
        {{- $before := "plan" }}
        {{- range $stage := list "chips" "publish" "pretrain" "embed" "probe" "report" }}
        - name: {{ $stage }}
          template: {{ $stage }}
          depends: {{ $before }}
          {{- if ne $stage "publish" }}
          when: {{ printf "{{tasks.%s.outputs.parameters.%s-slices}} > 0" (ternary "plan" "publish" (eq $stage "chips")) $stage | quote }}
          {{- end }}
        {{- $before = $stage }}
        {{- end }}
  - {{- include "eo-batch.step" (dict "root" . "stage" "plan" "next" (list "chips")) | nindent 4 }}
  - {{- include "eo-batch.fanOut" (dict "root" . "stage" "chips") | nindent 4 }}
  - {{- include "eo-batch.step" (dict "root" . "stage" "publish" "next" (list "pretrain" "embed" "probe" "report")) | nindent 4 }}
  - {{- include "eo-batch.fanOut" (dict "root" . "stage" "pretrain") | nindent 4 }}
  - {{- include "eo-batch.fanOut" (dict "root" . "stage" "embed") | nindent 4 }}
  - {{- include "eo-batch.step" (dict "root" . "stage" "probe" "next" list) | nindent 4 }}
  - {{- include "eo-batch.step" (dict "root" . "stage" "report" "next" list) | nindent 4 }}
{{- end }}
