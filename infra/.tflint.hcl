# tflint --recursive --config "$PWD/.tflint.hcl"; the rules are built in, nothing is downloaded.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# Files are named by subject: network.tf, cluster.tf, store.tf … Variables and outputs have files of their own anyway.
rule "terraform_standard_module_structure" {
  enabled = false
}
