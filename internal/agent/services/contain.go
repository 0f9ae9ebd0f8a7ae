// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"runtime/debug"
)

// Contain runs f and returns its panic as an error, with the stack.
func Contain(f func() error) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("panic: %v\n%s", what, debug.Stack())
		}
	}()
	return f()
}
