// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/netpol/program"
)

func TestAMissingRightIsNamed(t *testing.T) {
	err := unsupported(fmt.Errorf("listing tables: %w", unix.EPERM))
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v is not ErrUnsupported", err)
	}
	apart.AsUser(t, 65534, func() {
		if hasAdmin() {
			t.Error("a thread of nobody has CAP_NET_ADMIN")
		}
	})
	for admin, want := range map[bool]string{false: "add NET_ADMIN to the container", true: "a profile of seccomp"} {
		if got := cureForRights(admin); !strings.Contains(got, want) {
			t.Errorf("with the capability: %t: %q, want %q in it", admin, got, want)
		}
	}
}

func TestTheCureOfASettingFitsTheCause(t *testing.T) {
	for cause, want := range map[error]string{unix.EROFS: "--sysctl-root", unix.EACCES: "CAP_NET_ADMIN", unix.ENOENT: ""} {
		got := cureForSetting("bridge.x=1", &os.PathError{Op: "open", Path: "/proc/sys/net/bridge/x", Err: cause})
		if !strings.HasPrefix(got, "sysctl net.bridge.x=1 on the node") || !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q in it", cause, got, want)
		}
	}
}

// The kernel does not notify about modules and sysctls: the next verification sees the effect of the cure.
func TestABridgeIsEnforcedOnceTheModuleIsThere(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "add", "cni0", "type", "bridge")
		run(t, "ip", "addr", "add", "10.244.1.1/24", "dev", "cni0")
		run(t, "ip", "link", "set", "cni0", "up")
		settings := sysctl.Dir(t.TempDir())
		d := open(t, Options{Sysctls: settings})
		r := apply(t, d, &program.Program{})
		if len(r.Problems) != 1 || !r.Problems[0].Blocking ||
			!strings.Contains(r.Problems[0].Text, "br_netfilter is not loaded") ||
			!strings.Contains(r.Problems[0].Cure, "modprobe br_netfilter") {
			t.Fatalf("problems = %+v, want the missing module", r.Problems)
		}
		for range 2 { // nothing else is left to look at then
			verify(t, d)
			woken(t, d)
			apply(t, d, &program.Program{})
		}
		if err := os.MkdirAll(settings.Path("net/bridge"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-filter-vlan-tagged"} {
			if err := os.WriteFile(settings.Path("net/bridge/"+name), []byte("1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		verify(t, d)
		woken(t, d)
		healthy(t, d, &program.Program{})
		if now := bridged(t, links.IndexOf("cni0")); !now.All() {
			t.Errorf("bridge settings = %s, want both on", now)
		}
	})
}
