//go:build tools

// Package etcd pins the etcd server that the API server keeps its objects in.
package etcd

import (
	_ "go.etcd.io/etcd/server/v3"
)
