{{/* What the chart's own pods have in common. They satisfy the Pod Security standard `restricted`. */}}

{{/* User and group of the image. */}}
{{- define "eo-batch.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "eo-batch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Who a pod is, and where it is placed. Takes a dict: root, account. */}}
{{- define "eo-batch.podPlace" -}}
serviceAccountName: {{ (get .root.Values.serviceAccounts .account).name | quote }}
enableServiceLinks: false
securityContext: {{- include "eo-batch.podSecurity" . | nindent 2 }}
{{- with .root.Values.control.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.control.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.control.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Environment of the chart's own containers: what all pods get, the store, and a home that can be written. Takes the
root. */}}
{{- define "eo-batch.ownEnv" -}}
{{- $env := include "eo-batch.env" . | fromYaml -}}
{{- $own := dict "HOME" "/tmp" "EO_BATCH_STORE" (include "eo-batch.store" .) -}}
{{- range $name, $value := merge $env $own }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Plain keys of the store, where there are any. Takes the root. */}}
{{- define "eo-batch.storeKeys" -}}
{{- with .Values.store.existingSecret }}
envFrom:
  - secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* Files of the chart's own containers. */}}
{{- define "eo-batch.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: profiles, mountPath: /etc/eo-batch/profiles, readOnly: true}
{{- end }}

{{- define "eo-batch.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 2G}
- name: profiles
  configMap: {name: eo-batch-profiles}
{{- end }}

{{/* Packing nodes more tightly would throw away what their pods are working on. */}}
{{- define "eo-batch.leaveAlone" -}}
cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
karpenter.sh/do-not-disrupt: "true"
{{- end }}

{{/* Labels of a pod that `helm test` runs, beside those of all objects. Takes a dict: root, account. */}}
{{- define "eo-batch.testLabels" -}}
app.kubernetes.io/component: check
eo-batch.io/account: {{ .account }}
{{- with (get .root.Values.serviceAccounts .account).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* One that fails stays, for its log, until the next one. */}}
{{- define "eo-batch.testHook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
