//go:build tools

// Package metricsserver pins metrics-server, which the HPA reads CPU and memory from.
package metricsserver

import (
	_ "sigs.k8s.io/metrics-server/cmd/metrics-server"
)
