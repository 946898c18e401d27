{{/* What a work pool of Prefect makes of a flow run: a Job whose pod is placed, secured and furnished as the worker's. */}}

{{/* Credentials for Prefect's API, as environment variables. Takes the root. */}}
{{- define "eo-batch.prefectKeys" -}}
{{- range $variable, $secret := dict "PREFECT_API_KEY" .Values.prefect.apiKeySecret "PREFECT_API_AUTH_STRING" .Values.prefect.authStringSecret }}
{{- if $secret.name }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef: {name: {{ $secret.name | quote }}, key: {{ $secret.key | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Environment of the worker. Takes the root. */}}
{{- define "eo-batch.workerEnv" -}}
{{- include "eo-batch.ownEnv" . }}
- name: PREFECT_API_URL
  value: {{ .Values.prefect.apiUrl | quote }}
{{- include "eo-batch.prefectKeys" . }}
{{- if eq .Values.prefect.type "kubernetes" }}
# Without it, the worker would watch all namespaces, which it has no right to.
- name: PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES
  value: {{ .Release.Namespace | quote }}
{{- range $setting, $secret := dict "API_KEY" .Values.prefect.apiKeySecret "API_AUTH_STRING" .Values.prefect.authStringSecret }}
{{- if $secret.name }}
# Flow runs' Jobs then refer to the Secret instead of quoting it.
- name: PREFECT_INTEGRATIONS_KUBERNETES_WORKER_{{ $setting }}_SECRET_NAME
  value: {{ $secret.name | quote }}
- name: PREFECT_INTEGRATIONS_KUBERNETES_WORKER_{{ $setting }}_SECRET_KEY
  value: {{ $secret.key | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The Job of a flow run. What stands in double braces within the text is filled in by Prefect. Takes the root. */}}
{{- define "eo-batch.flowRunJob" -}}
apiVersion: batch/v1
kind: Job
metadata:
  generateName: {{ "{{ name }}-" | quote }}
  namespace: {{ .Release.Namespace | quote }}
  labels: {{ "{{ labels }}" | quote }}
spec:
  # An evicted flow run is started again by Prefect, not by Kubernetes.
  backoffLimit: 0
  activeDeadlineSeconds: {{ .Values.prefect.flowRun.deadlineSeconds | int }}
  ttlSecondsAfterFinished: {{ .Values.prefect.flowRun.ttlSeconds | int }}
  template:
    metadata:
      labels:
        eo-batch.io/account: driver
        {{- with .Values.serviceAccounts.driver.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations: {{- include "eo-batch.leaveAlone" . | nindent 8 }}
    spec:
      {{- include "eo-batch.podPlace" (dict "root" . "account" "driver") | nindent 6 }}
      parallelism: 1
      completions: 1
      restartPolicy: Never
      containers:
        - name: prefect-job
          image: {{ "{{ image }}" | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args: {{ "{{ command }}" | quote }}
          env:
            {{- include "eo-batch.ownEnv" . | trim | nindent 12 }}
            {{- include "eo-batch.prefectKeys" . | nindent 12 }}
          {{- with include "eo-batch.storeKeys" . }}
          {{- . | trim | nindent 10 }}
          {{- end }}
          resources: {{- toYaml .Values.prefect.flowRun.resources | nindent 12 }}
          terminationMessagePolicy: FallbackToLogsOnError
          securityContext: {{- include "eo-batch.containerSecurity" . | nindent 12 }}
          volumeMounts: {{- include "eo-batch.mounts" . | nindent 12 }}
      volumes: {{- include "eo-batch.volumes" . | nindent 8 }}
{{- end }}

{{/* The pool's base job template. What deployments may set beside name, labels, command and env: the image. Takes the
root. */}}
{{- define "eo-batch.workPool" -}}
variables:
  type: object
  description: How flow runs of eo-batch become Jobs; made by the Helm chart
  properties:
    name:
      title: Name
      type: string
      description: Name of the Job; Prefect's own for the flow run if there is none
    labels:
      title: Labels
      type: object
      additionalProperties: {type: string}
      description: Labels of the Job and its pod
      default: {}
    command:
      title: Command
      type: string
      description: Command of the flow run; Prefect's own if there is none
    env:
      title: Environment
      type: object
      additionalProperties: {type: string}
      description: Environment of the flow run. Nothing secret
      default: {}
    image:
      title: Image
      type: string
      description: Image of the flow run
      default: {{ include "eo-batch.image" . | quote }}
job_configuration:
  name: {{ "{{ name }}" | quote }}
  labels: {{ "{{ labels }}" | quote }}
  command: {{ "{{ command }}" | quote }}
  env: {{ "{{ env }}" | quote }}
  namespace: {{ .Release.Namespace | quote }}
  # A node may have to come first.
  pod_watch_timeout_seconds: 600
  stream_output: true
  job_manifest: {{- include "eo-batch.flowRunJob" . | nindent 4 }}
{{- end }}
