// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package kubeapitest starts an API server for a test. It owns the process and its data, which end
// with the test.
package kubeapitest

import (
	"errors"
	"os"
	"testing"

	"github.com/podwall/podwall/internal/lab/kubeapi"
)

// Start starts a server on loopback and ends it when the test ends. If the
// program has not been built, the test is skipped, or fails where CI=true.
func Start(tb testing.TB) *kubeapi.Server {
	tb.Helper()
	return StartWith(tb, kubeapi.Options{})
}

// StartWith is Start with options.
func StartWith(tb testing.TB, o kubeapi.Options) *kubeapi.Server {
	tb.Helper()
	// The directory first: clean-ups run in reverse order, and the directory
	// must not vanish under a running etcd.
	dir := tb.TempDir()
	s, err := kubeapi.Launch(tb.Context(), dir, o)
	if errors.Is(err, kubeapi.ErrNotBuilt) && os.Getenv("CI") != "true" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Errorf("stopping the API server: %v", err)
		}
	})
	return s
}
