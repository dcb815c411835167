//go:build tools

// Package httpaddon pins KEDA's HTTP add-on.
package httpaddon

import (
	_ "github.com/kedacore/http-add-on/operator"
	_ "github.com/kedacore/http-add-on/interceptor"
	_ "github.com/kedacore/http-add-on/scaler"
)
