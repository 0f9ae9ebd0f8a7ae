// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/kernel/sysctl"
)

func TestAMissingMountOfSysctlsIsSaidAndDoesNotStopTheAgent(t *testing.T) {
	empty := sysctl.Dir(t.TempDir())
	o := datapath.Options{Sysctls: empty}
	p := checkSysctls(&o)
	if o.Sysctls != sysctl.Default {
		t.Errorf("settings are looked for in %q, want %q", o.Sysctls, sysctl.Default)
	}
	if p == nil || p.Blocking || !strings.Contains(p.Text, "--sysctl-root="+string(empty)) || !strings.Contains(p.Cure, "mount the node's /proc/sys/net at "+string(empty)+"/net") {
		t.Errorf("the problem is %+v", p)
	}
	if p := checkSysctls(&o); p != nil {
		t.Errorf("with the settings that everybody sees: %+v", p)
	}
}
