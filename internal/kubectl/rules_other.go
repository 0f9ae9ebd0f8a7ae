// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package kubectl

import (
	"errors"

	"github.com/podwall/podwall/internal/cluster"
)

// render refuses: the driver of nftables, which also writes the text, is of Linux.
func (*rulesReport) render(*scene, *cluster.Pod) error {
	return errors.New("rules needs kubectl-podwall on Linux: run it in a container or on a node")
}
