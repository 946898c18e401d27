# What eo-batch needs in a cluster before its own chart: Argo Workflows, JobSet, Kueue, the Dask operator, GPUs that the
# scheduler can count, and a namespace that admits restricted pods only. The same on every cloud.

locals {
  releases = yamldecode(file("${path.module}/../../releases.yaml"))

  # Argo's executor containers (init and wait) are put into our pods by the controller, so that their security context
  # can only be set there. Without it, Pod Security "restricted" refuses every pod of a workflow.
  restricted = {
    allowPrivilegeEscalation = false
    capabilities             = { drop = ["ALL"] }
    readOnlyRootFilesystem   = true
    runAsNonRoot             = true
    seccompProfile           = { type = "RuntimeDefault" }
  }

  values = {
    "argo-workflows" = {
      controller = {
        # Our own chart makes the service accounts of workflows, with fewer rights than this one would.
        workflowNamespaces = [var.namespace]
      }
      executor = {
        resources       = { requests = { cpu = "50m", memory = "64Mi" } }
        securityContext = local.restricted
      }
      mainContainer = { securityContext = local.restricted }
      server        = { authModes = ["client"] }
      workflow = {
        rbac           = { create = false }
        serviceAccount = { create = false }
      }
    }
    "dask-kubernetes-operator" = {}
    # Said here, because charts out of these projects' trees name images of their staging registry, which is swept.
    "jobset" = {
      image = { repository = "registry.k8s.io/jobset/jobset", tag = local.releases["jobset"].app, pullPolicy = "IfNotPresent" }
    }
  }

  kueue_values = {
    controllerManager = {
      manager = {
        image = { repository = "registry.k8s.io/kueue/kueue", tag = local.releases["kueue"].app, pullPolicy = "IfNotPresent" }
      }
    }
  }

  device_plugin_values = {
    # The chart's own affinity waits for labels of node-feature-discovery, which is not installed: pools have ours.
    affinity = {
      nodeAffinity = {
        requiredDuringSchedulingIgnoredDuringExecution = {
          nodeSelectorTerms = [{
            matchExpressions = [{ key = "eo-batch.io/pool", operator = "In", values = var.gpu_pools }]
          }]
        }
      }
    }
    tolerations = [
      { key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" },
      { key = "eo-batch.io/spot", operator = "Exists", effect = "NoSchedule" },
      { key = "kubernetes.azure.com/scalesetpriority", operator = "Exists", effect = "NoSchedule" },
    ]
  }
}

resource "kubernetes_namespace_v1" "eo_batch" {
  metadata {
    name = var.namespace
    labels = {
      "pod-security.kubernetes.io/enforce" = "restricted"
      "pod-security.kubernetes.io/warn"    = "restricted"
    }
  }
}

resource "helm_release" "controllers" {
  for_each = local.values

  name             = each.key
  repository       = local.releases[each.key].repository
  chart            = local.releases[each.key].chart
  version          = local.releases[each.key].version
  namespace        = local.releases[each.key].namespace
  create_namespace = true
  atomic           = true
  values           = [yamlencode(each.value)]

  # Argo's chart puts roles into this namespace.
  depends_on = [kubernetes_namespace_v1.eo_batch]
}

# Last: its webhook refuses Jobs until it runs, and charts install themselves with Jobs.
resource "helm_release" "kueue" {
  name             = "kueue"
  repository       = local.releases["kueue"].repository
  chart            = local.releases["kueue"].chart
  version          = local.releases["kueue"].version
  namespace        = local.releases["kueue"].namespace
  create_namespace = true
  atomic           = true
  values           = [yamlencode(local.kueue_values)]

  depends_on = [helm_release.controllers, helm_release.device_plugin]
}

resource "helm_release" "device_plugin" {
  count = var.device_plugin ? 1 : 0

  name             = "nvidia-device-plugin"
  repository       = local.releases["nvidia-device-plugin"].repository
  chart            = local.releases["nvidia-device-plugin"].chart
  version          = local.releases["nvidia-device-plugin"].version
  namespace        = local.releases["nvidia-device-plugin"].namespace
  create_namespace = true
  atomic           = true
  values           = [yamlencode(local.device_plugin_values)]
}
