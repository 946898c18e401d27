{{/* What can't work is refused when the chart is rendered, with the remedy. Prints nothing. */}}

{{/* Refuses if the cluster lacks a kind of objects. Takes a dict: root, api, value, what (it belongs to, and version). */}}
{{- define "eo-batch.needs" -}}
{{- if not (.root.Capabilities.APIVersions.Has .api) -}}
{{- printf "%s needs %s, and the cluster has no %s. Install it first, or set %s=false; when rendering without a cluster, add --api-versions %s" .value .what .api .value .api | fail -}}
{{- end -}}
{{- end }}

{{/* All refusals. Takes the root. */}}
{{- define "eo-batch.checks" -}}
{{- $values := .Values -}}
{{- $labels := $values.serviceAccounts.workflow.podLabels -}}
{{- if and $labels (ne (toJson $labels) (toJson $values.serviceAccounts.runner.podLabels)) -}}
{{- fail "serviceAccounts.workflow.podLabels differs from serviceAccounts.runner.podLabels: the steps of a workflow have the labels of runners' pods; leave it empty" -}}
{{- end -}}
{{- if $values.argo.enabled -}}
{{- include "eo-batch.needs" (dict "root" . "value" "argo.enabled" "what" "Argo Workflows (tested: 3.7.3)" "api" "argoproj.io/v1alpha1/WorkflowTemplate") -}}
{{- end -}}
{{- if $values.jobset.enabled -}}
{{- include "eo-batch.needs" (dict "root" . "value" "jobset.enabled" "what" "JobSet (tested: 0.10.1)" "api" "jobset.x-k8s.io/v1alpha2/JobSet") -}}
{{- end -}}
{{- if $values.dask.enabled -}}
{{- include "eo-batch.needs" (dict "root" . "value" "dask.enabled" "what" "the Dask operator (tested: 2026.3.0)" "api" "kubernetes.dask.org/v1/DaskCluster") -}}
{{- if not (hasKey $values.pools $values.dask.pool) -}}
{{- printf "dask.pool=%s is not in pools (known: %s)" $values.dask.pool (keys $values.pools | sortAlpha | join ", ") | fail -}}
{{- end -}}
{{- if gt (int $values.dask.workers_min) (int $values.dask.workers_max) -}}
{{- printf "dask.workers_min=%d is more than dask.workers_max=%d" (int $values.dask.workers_min) (int $values.dask.workers_max) | fail -}}
{{- end -}}
{{- end -}}
{{- if $values.kueue.enabled -}}
{{- $queues := dict -}}
{{- range $pool := keys $values.kueue.quotas | sortAlpha -}}
{{- $queue := (get $values.pools $pool | default dict).queue | default $pool -}}
{{- with get $queues $queue -}}
{{- printf "pools.%s.queue=%s is the queue of pool %s too, and each pool has a quota of its own; use another name" $pool $queue . | fail -}}
{{- end -}}
{{- $_ := set $queues $queue $pool -}}
{{- end -}}
{{- include "eo-batch.needs" (dict "root" . "value" "kueue.enabled" "what" "Kueue (tested: 0.15.2)" "api" "kueue.x-k8s.io/v1beta2/ClusterQueue") -}}
{{- end -}}
{{- if $values.karpenter.enabled -}}
{{- include "eo-batch.needs" (dict "root" . "value" "karpenter.enabled" "what" "Karpenter (tested: 1.14.0)" "api" "karpenter.sh/v1/NodePool") -}}
{{- if not (and $values.karpenter.nodeClassRef $values.karpenter.nodeClassRef.name) -}}
{{- fail "karpenter.nodeClassRef is missing: name the class of nodes (group, kind, name) that NodePools use" -}}
{{- end -}}
{{- end -}}
{{- if and $values.prefect.enabled (not $values.prefect.apiUrl) -}}
{{- fail "prefect.apiUrl is missing: name the URL of Prefect's API, which ends in /api on a server of your own, or set prefect.enabled=false" -}}
{{- end -}}
{{- range $stage, $placed := $values.stages -}}
{{- if not (hasKey $values.pools $placed.pool) -}}
{{- printf "stages.%s.pool=%s is not in pools (known: %s)" $stage $placed.pool (keys $values.pools | sortAlpha | join ", ") | fail -}}
{{- end -}}
{{- if and (gt (int $placed.nodes) 1) (ne $stage "pretrain") -}}
{{- printf "stages.%s.nodes=%d: only pretrain works on one shard in several pods" $stage (int $placed.nodes) | fail -}}
{{- end -}}
{{- if and (gt (int $placed.nodes) 1) (not $values.jobset.enabled) -}}
{{- printf "stages.%s.nodes=%d: pods that start together are a JobSet; set jobset.enabled=true, or nodes=1" $stage (int $placed.nodes) | fail -}}
{{- end -}}
{{- end -}}
{{- range $section, $of := dict "kueue.quotas" $values.kueue.quotas "karpenter.nodePools" $values.karpenter.nodePools "priorityClasses.values" $values.priorityClasses.values -}}
{{- range $pool := keys $of | sortAlpha -}}
{{- if not (hasKey $values.pools $pool) -}}
{{- printf "%s.%s is not in pools (known: %s)" $section $pool (keys $values.pools | sortAlpha | join ", ") | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.resourceQuota.enabled (not $values.resourceQuota.hard) -}}
{{- fail "resourceQuota.hard is empty: say how much of what the namespace may use, such as requests.cpu, or set resourceQuota.enabled=false" -}}
{{- end -}}
{{- end }}

{{/* What works less well than it could, for people. Takes the root. */}}
{{- define "eo-batch.missing" -}}
Admit nothing but restricted pods in this namespace (once):
  kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=restricted
{{- if not .Values.image.gpu }}

image.gpu is empty: pretrain, embed and probe need the image with torch.
{{- end }}
{{- if not .Values.jobset.enabled }}

jobset.enabled is false: pretraining runs in one pod.
{{- end }}
{{- if not .Values.prefect.enabled }}

prefect.enabled is false: nobody runs Prefect's deployments.
{{- end }}
{{- $identified := or .Values.store.existingSecret .Values.serviceAccounts.runner.annotations .Values.serviceAccounts.runner.podLabels }}
{{- if not $identified }}

Pods have neither keys (store.existingSecret) nor annotations of a cloud's identity (serviceAccounts): they reach the
store only where the service accounts are known to the cloud by name (EKS Pod Identity, GKE), or nobody has to be known.
{{- end }}
{{- end }}
