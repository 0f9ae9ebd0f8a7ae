// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/podwall/podwall/internal/netpol/program"
)

const ipvsHeading = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
`

func TestAServiceOfIPVSIsSeen(t *testing.T) {
	const server = "  -> 0AF40105:1F90      Masq    1      0          0         \n"
	tests := []struct {
		name, listing string
		want          bool
	}{
		{"nothing", "", false},
		{"the heading alone", ipvsHeading, false},
		{"IPv4", ipvsHeading + "TCP  0A60000A:0050 rr \n" + server, true},
		{"IPv6", ipvsHeading + "UDP  [fd96:0000:0000:0000:0000:0000:0000:0010]:0035 rr \n", true},
		{"SCTP", ipvsHeading + "SCTP 0A60000A:0050 rr \n", true},
		{"firewall mark", ipvsHeading + "FWM  00000001 wrr persistent 300 FFFFFFFF\n", true},
		{"a protocol that we do not know", ipvsHeading + "DCCP 0A60000A:0050 rr \n", true},
		{"servers alone", ipvsHeading + server, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := usesIPVS(strings.NewReader(tt.listing))
			if got != tt.want || err != nil {
				t.Errorf("used = %t, %v, want %t", got, err, tt.want)
			}
		})
	}
}

// The listing can be long, and it is read at every change.
func TestOnlyTheBeginningOfTheServicesIsRead(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(ipvsHeading+"TCP  0A60000A:0050 rr \n"),
		iotest.ErrReader(errors.New("read on")))
	if used, err := usesIPVS(endless); !used || err != nil {
		t.Errorf("used = %t, %v", used, err)
	}
}

func TestAListingThatBreaksOffIsAnError(t *testing.T) {
	broken := io.MultiReader(strings.NewReader(ipvsHeading), iotest.ErrReader(errors.New("gone")))
	if used, err := usesIPVS(broken); used || err == nil {
		t.Errorf("used = %t, %v, want an error", used, err)
	}
}

// The result follows the kernel: it is read at every Verify. hack/vm/ipvs shows the problem with real
// services on a kernel that has IPVS.
func TestVerifyAsksAboutIPVS(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		healthy(t, d, &program.Program{}) // a pod without an interface would be looked for again
		verify(t, d)
		if n := d.take(); n.Hooks {
			t.Errorf("notice without a change: %+v", n)
		}
		d.untracked = "services of IPVS are not tracked" // as they were a moment ago
		verify(t, d)
		if n := d.take(); !n.Hooks {
			t.Errorf("notice after a change: %+v, want one that leads to an Apply", n)
		}
	})
}
