// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

func TestTheConnectionTableIsCounted(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		apply(t, d, isolated(first)) // switches connection tracking on
		before, _, err := d.Connections()
		if err != nil {
			t.Fatal(err)
		}
		connect(t, inet.TCP, first, elsewhere)
		connect(t, inet.UDP, first, elsewhere)
		after, limit, err := d.Connections()
		if err != nil || after != before+2 {
			t.Errorf("entries = %d, %v, want two more than %d", after, err, before)
		}
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := strconv.Atoi(strings.TrimSpace(string(text))); int(limit) != want {
			t.Errorf("limit = %d, the kernel says %d", limit, want)
		}
	})
}
