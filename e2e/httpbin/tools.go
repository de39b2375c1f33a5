//go:build tools

// Package httpbin names the program, so that `go mod tidy` keeps it.
package httpbin

import _ "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"
