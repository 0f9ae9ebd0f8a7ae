// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/nft"
)

// early accepts new connections before our chain: an address translation in a nat chain that the survey has
// not seen yet.
func early(t *testing.T) {
	t.Helper()
	nftRun(t, "add table inet theirs", "add chain inet theirs early { type nat hook postrouting priority -195; }",
		"add rule inet theirs early ip daddr 192.0.2.254 snat ip to 192.0.2.250",
		"add rule inet theirs early ip6 daddr 2001:db8:706f:6477:616c:6c00:0:1 snat ip6 to 2001:db8::9")
}

func TestSelfTestNoticesAPacketThatPasses(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		early(t)
		problems, err := d.selfTest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(problems) != 2 {
			t.Fatalf("problems = %+v, want one for each family", problems)
		}
		for _, p := range problems {
			if !p.Blocking || !strings.Contains(p.Text, "passed") {
				t.Errorf("problem = %+v, want a blocking one that says the packet passed", p)
			}
		}
	})
}

func TestSelfTestNoticesAPacketThatSomebodyElseDrops(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		nftRun(t, "add table inet theirs", "add chain inet theirs out { type filter hook output priority 0; policy drop; }")
		passed, err := d.selfTest(t.Context())
		if len(passed) > 0 || err == nil || !strings.Contains(err.Error(), "not by podwall") {
			t.Errorf("passed = %+v, err = %v, want a test that could not be run", passed, err)
		}
	})
}

// A failed attempt to test does not count as enforced and does not change the type of chain; the test is
// tried again.
func TestASelfTestThatCouldNotBeRunIsTriedAgain(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		nftRun(t, "add table inet theirs", "add chain inet theirs out { type filter hook output priority 0; policy drop; }")
		if r := apply(t, d, isolated("10.244.2.5")); r.Filter || len(r.Problems) != 1 || r.Problems[0].Subject != "self-test" {
			t.Errorf("report = %s, want nat chains and one problem", brief(r))
		}
		nftRun(t, "delete table inet theirs")
		d.proof.last = time.Time{} // as if the wait were over
		if r := apply(t, d, isolated("10.244.2.5")); r.Filter || len(r.Problems) != 0 {
			t.Errorf("report = %s, want nat chains and no problem", brief(r))
		}
	})
}

// If nat chains do not work on a node, the next process must not open it by trying them.
func TestTheNextProcessKeepsFilterChains(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		first := open(t, Options{})
		healthy(t, first, isolated("10.244.2.5"))
		early(t)
		first.proof.tested = false
		apply(t, first, isolated("10.244.2.5"))
		second := open(t, Options{})
		second.survey = &nft.Survey{} // as if no chain ran before ours
		if r := apply(t, second, isolated("10.244.2.5")); !r.Filter || r.Changes > 0 {
			t.Errorf("report = %s, want filter chains and no change", brief(r))
		}
	})
}

func TestSelfTestNeedsItsEntry(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		nftRun(t, "delete element inet podwall pod-ingress4 { 192.0.2.254 }")
		problems, err := d.selfTest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(problems) != 1 || problems[0].Subject != "self-test ipv4" || !strings.Contains(problems[0].Text, "passed") {
			t.Errorf("problems = %+v, want one for IPv4", problems)
		}
	})
}

// If nat chains do not work although no chain runs before them, filter chains enforce instead, and they are
// tested too.
func TestAFailedSelfTestMeansFilterChains(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, isolated("10.244.2.5"))
		early(t)
		d.proof.tested = false // as at the start, with a survey that saw nothing
		r := apply(t, d, isolated("10.244.2.5"))
		if !r.Filter || len(r.Problems) != 1 || !r.Problems[0].Blocking || r.Problems[0].Subject != "datapath" {
			t.Errorf("report = %s, want filter chains and one blocking problem", brief(r))
		}
		if problems, err := d.selfTest(t.Context()); err != nil || len(problems) > 0 {
			t.Errorf("filter chains do not drop: %+v", problems)
		}
		if r = apply(t, d, isolated("10.244.2.5")); !r.Filter || len(r.Problems) != 1 {
			t.Errorf("report of the next pass = %s, want the same", brief(r))
		}
	})
}

func TestSelfTestInterfacesOfADeadProcessAreReplaced(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "add", testLink, "type", "veth", "peer", "name", testPeer)
		healthy(t, open(t, Options{}), isolated())
		if text := run(t, "ip", "-o", "link"); strings.Contains(text, testLink) {
			t.Errorf("left behind:\n%s", text)
		}
	})
}

// A host may have IPv6 disabled for new interfaces only.
func TestSelfTestWithoutIPv6OnNewInterfaces(t *testing.T) {
	for name, setting := range map[string]string{"All": "all", "Default": "default"} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				run(t, "sysctl", "-qw", "net.ipv6.conf."+setting+".disable_ipv6=1")
				if r := healthy(t, open(t, Options{}), isolated()); r.Filter {
					t.Errorf("report = %s, want nat chains", brief(r))
				}
			})
		})
	}
}

func TestKernelsThatAreTooOldAreRefused(t *testing.T) {
	tests := []struct {
		release string
		ok      bool
	}{
		{"5.10.0-28-amd64", true}, {"5.9.16", false}, {"4.19.0", false}, {"3.10.0-1160.el7.x86_64", false},
		{"5.15.167.4-microsoft-standard-WSL2", true}, {"6.1.0", true}, {"10.0.0", true}, {"5.4.0-generic", false},
		{"strange", true}, {"", true},
	}
	for _, tt := range tests {
		err := checkRelease(tt.release)
		if (err == nil) != tt.ok {
			t.Errorf("%q: %v, want accepted: %t", tt.release, err, tt.ok)
		}
		if err != nil && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), tt.release) || !strings.Contains(err.Error(), "5.10")) {
			t.Errorf("%q: %v, want the release and the minimum in it", tt.release, err)
		}
	}
}

func TestTheKernelsRefusalsSayWhatToDo(t *testing.T) {
	tests := []struct {
		err  error
		want string // part of the message; empty means the error stays as it is
	}{
		{unix.EPERM, "CAP_NET_ADMIN"},
		{unix.EACCES, "CAP_NET_ADMIN"},
		{unix.EPROTONOSUPPORT, "CONFIG_NF_TABLES_INET"},
		{unix.EINVAL, "CONFIG_NF_TABLES_INET"},
		{unix.EOPNOTSUPP, "CONFIG_NF_TABLES_INET"},
		{unix.EAFNOSUPPORT, "CONFIG_NF_TABLES_INET"},
		{unix.ENOMEM, ""},
	}
	for _, tt := range tests {
		err := unsupported(fmt.Errorf("listing tables: %w", tt.err))
		if got := errors.Is(err, ErrUnsupported); got != (tt.want != "") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v became %q, want %q in it", tt.err, err, tt.want)
		}
	}
}
