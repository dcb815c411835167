//go:build tools

// Package kserve pins KServe's controller manager.
package kserve

import (
	_ "github.com/kserve/kserve/cmd/manager"
)
