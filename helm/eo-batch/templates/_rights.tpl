{{/* What each service account may do in Kubernetes, within the namespace, and nothing else. Runners may do nothing. */}}

{{/* What is waited for in a Kueue queue: told by `eo-batch status`. Takes the root; true or empty. */}}
{{- define "eo-batch.queued" -}}
{{- $queued := .Values.kueue.enabled -}}
{{- range .Values.pools -}}{{- if .queue -}}{{- $queued = true -}}{{- end -}}{{- end -}}
{{- if $queued -}}true{{- end -}}
{{- end }}

{{/* Drivers start work, follow it, say why it does not start, and delete it. Takes the root. */}}
{{- define "eo-batch.driverRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, update, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Whether the accounts of pods are there, before pods are asked for.
- apiGroups: [""]
  resources: [serviceaccounts]
  resourceNames:
    - {{ .Values.serviceAccounts.runner.name | quote }}
    {{- if .Values.argo.enabled }}
    - {{ .Values.serviceAccounts.workflow.name | quote }}
    {{- end }}
  verbs: [get]
{{- if .Values.argo.enabled }}
# With Argo's server, which asks with the driver's token.
- apiGroups: [argoproj.io]
  resources: [workflows]
  verbs: [get, list, create, patch, delete]
- apiGroups: [argoproj.io]
  resources: [workflowtemplates]
  verbs: [get]
{{- end }}
{{- if .Values.jobset.enabled }}
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, watch, create, delete]
{{- end }}
{{- if .Values.dask.enabled }}
- apiGroups: [kubernetes.dask.org]
  resources: [daskclusters]
  verbs: [get, list, create, delete]
- apiGroups: [kubernetes.dask.org]
  resources: [daskautoscalers]
  verbs: [get, create, update, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list]
{{- end }}
{{- if include "eo-batch.queued" . }}
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues, workloads]
  verbs: [get, list]
{{- end }}
{{- end }}

{{/* Argo's executor reports what became of a step, creates the objects that work off a stage, and waits for their end.
Takes the root. */}}
{{- define "eo-batch.workflowRules" -}}
- apiGroups: [argoproj.io]
  resources: [workflowtaskresults]
  verbs: [create, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create, patch]
{{- if .Values.jobset.enabled }}
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, create, patch]
{{- end }}
{{- end }}

{{/* The sweeper deletes Leases that have expired; Kubernetes deletes what they own. It reminds Argo of lost pods by a
change of their workflows. Takes the root. */}}
{{- define "eo-batch.sweeperRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, delete]
{{- if .Values.argo.enabled }}
- apiGroups: [argoproj.io]
  resources: [workflows]
  verbs: [list, patch]
{{- end }}
{{- end }}
