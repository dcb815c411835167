//go:build tools

// Package etcd pins the etcd server that the cluster of the end-to-end tests runs.
package etcd

import (
	_ "go.etcd.io/etcd/server/v3"
)
