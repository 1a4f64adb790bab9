# What stands here in a real deployment is the module of the cloud provider. This
# sample needs no cloud: Terraform's built-in terraform_data keeps the facts of
# each node, so init, apply and destroy work anywhere.

terraform {
  required_version = ">= 1.4"
}

variable "label" { type = string }
variable "tag" { type = string }
variable "role" { type = string }
variable "node_count" { type = string }
variable "start_count" { type = string }
variable "instance_type" { type = string }
variable "zones" { type = string }
variable "data_volume_size" { type = string }
variable "ip_prefix" { type = string }
variable "first_host" { type = string }

locals {
  zones = split(",", var.zones)
  nodes = [for i in range(tonumber(var.node_count)) : {
    machine_name = format("%s-%s-%s-%04d", var.label, var.role, var.tag, tonumber(var.start_count) + i)
    ip_address   = "${var.ip_prefix}.${tonumber(var.first_host) + i}"
    zone         = local.zones[i % length(local.zones)]
  }]
}

resource "terraform_data" "node" {
  count = tonumber(var.node_count)
  input = local.nodes[count.index]
}

output "instances" {
  value = terraform_data.node[*].output
}
