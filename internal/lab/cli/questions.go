// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/netpol/lint"
)

// questions are warnings about policies that mean something and were probably not meant.
func questions(in *complete.Input, snap *cluster.Snapshot) []cluster.Diagnostic {
	var list []cluster.Diagnostic
	for _, f := range lint.Check(complete.Existing(snap, in.Namespaces)) {
		list = append(list, f.Diagnostic)
	}
	return list
}
