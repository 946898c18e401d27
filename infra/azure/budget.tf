# Tells someone before a forgotten pool becomes dear. It stops nothing.

resource "azurerm_consumption_budget_resource_group" "monthly" {
  for_each = var.budget == null ? {} : {
    "platform" = azurerm_resource_group.main.id
    # AKS keeps nodes and disks, which is where the money goes, in a group of its own.
    "nodes" = azurerm_kubernetes_cluster.main.node_resource_group_id
  }

  name              = "${var.name}-${each.key}"
  resource_group_id = each.value
  amount            = var.budget.amount
  time_grain        = "Monthly"

  time_period {
    start_date = var.budget.start
  }

  notification {
    operator       = "GreaterThan"
    threshold      = 80
    threshold_type = "Actual"
    contact_emails = [var.budget.email]
  }

  notification {
    operator       = "GreaterThan"
    threshold      = 100
    threshold_type = "Forecasted"
    contact_emails = [var.budget.email]
  }
}
