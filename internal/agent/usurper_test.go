// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
)

// listenAs listens on a free port of the loopback interface as a user.
func listenAs(t *testing.T, uid uintptr) string {
	t.Helper()
	return listener(t, uid).Addr().String()
}

func listener(t *testing.T, uid uintptr) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	apart.AsUser(t, uid, func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAPortOfAUserIsToldFromOneOfRoot(t *testing.T) {
	users, roots := listenAs(t, 65534), listenAs(t, 0)
	for _, tt := range []struct {
		name  string
		addrs []string
		want  bool
	}{
		{"a user's", []string{users}, true},
		{"root's", []string{roots}, false},
		{"one of each", []string{users, roots}, false},
		{"nobody's", []string{"127.0.0.1:1"}, false},
		{"none", []string{""}, false},
	} {
		if got := heldByUser(tt.addrs); got != tt.want {
			t.Errorf("%s: held by a user: %t", tt.name, got)
		}
	}
}
