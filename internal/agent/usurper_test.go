// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// listenAs listens on a free port of the loopback interface as a user.
func listenAs(t *testing.T, uid uintptr) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const keep = ^uintptr(0)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, uid, keep); e != 0 {
		t.Skip("cannot become another user: ", e)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); e != 0 {
		panic(e) // the thread must not be used again
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
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
