// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package kubeapi

import "errors"

// netns is the caller's network namespace; other systems have no more.
type netns struct{}

func keepNetns(fd int) (netns, error) {
	if fd != 0 {
		return netns{}, errors.New("entering a network namespace: only Linux has them")
	}
	return netns{}, nil
}

func (netns) Close() error            { return nil }
func (netns) Do(f func() error) error { return f() }
