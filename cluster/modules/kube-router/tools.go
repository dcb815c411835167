//go:build tools

// Package kuberouter pins kube-router, which enforces NetworkPolicies with iptables and ipset.
package kuberouter

import (
	_ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
)
