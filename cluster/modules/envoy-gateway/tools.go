//go:build tools

// Package envoygateway pins Envoy Gateway, which routes KServe's Standard mode.
package envoygateway

import (
	_ "github.com/envoyproxy/gateway/cmd/envoy-gateway"
)
