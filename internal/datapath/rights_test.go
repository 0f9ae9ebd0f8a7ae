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

	"github.com/podwall/podwall/internal/testkit/apart"
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
