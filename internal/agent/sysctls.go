// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/observe"
)

// checkSysctls makes sure that settings can be read, and falls back on those that
// every process sees: a missing mount must not keep a node from being protected.
// What cannot be written then is a problem of its own.
func checkSysctls(o *datapath.Options) *observe.Problem {
	err := o.Sysctls.Check()
	if err == nil {
		return nil
	}
	p := &observe.Problem{Subject: "sysctls", Text: fmt.Sprintf("--sysctl-root=%s does not show the kernel's "+
		"settings, using %s: %v", o.Sysctls, sysctl.Default, err),
		Cure: fmt.Sprintf("mount the node's /proc/sys/net at %s (hostPath, not read-only), "+
			"or leave --sysctl-root out", o.Sysctls.Path("net"))}
	o.Sysctls = sysctl.Default
	return p
}
