// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interpose_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/testkit/interpose"
)

// under runs f on a thread under an interposer; the thread ends with it.
func under(t *testing.T, answer func(*interpose.Call) interpose.Answer, numbers []int, f func()) {
	t.Helper()
	done := make(chan error, 1)
	var stop func()
	go func() {
		runtime.LockOSThread()
		var err error
		if stop, err = interpose.Thread(answer, numbers...); err == nil {
			f()
		}
		done <- err
	}()
	err := <-done
	if errors.Is(err, unix.EACCES) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	stop()
}

func TestAProgramsClockIsPutForwardAndBack(t *testing.T) {
	for _, ahead := range []time.Duration{0, 30 * time.Hour, -400 * 24 * time.Hour} {
		var clock interpose.Clock
		clock.Set(ahead)
		var out strings.Builder
		var err error
		under(t, clock.Answer, interpose.Clocks(), func() {
			cmd := exec.Command("date", "+%s")
			cmd.Stdout = &out
			if err = interpose.StartWithoutVDSO(cmd); err == nil {
				err = cmd.Wait()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if off := time.Unix(seconds, 0).Sub(time.Now().Add(ahead)); off.Abs() > time.Minute {
			t.Errorf("put %s ahead the program is off by %s", ahead, off)
		}
	}
}

func TestARequestOfNetlinkFailsAsItIsTold(t *testing.T) {
	for _, f := range interpose.Faults() {
		t.Run(f.String(), func(t *testing.T) {
			var faults interpose.Netlink
			var struckErr, after error
			hidden := f.Errno == unix.EINTR && f.Kind != interpose.Refused // these calls do not wait
			want := 1
			if hidden {
				want = 0
			}
			under(t, faults.Answer, interpose.NetlinkCalls(), func() {
				faults.Strike(f, unix.NETLINK_ROUTE, 0, 1)
				_, struckErr = netlink.AddrList(nil, 0)
				if _, struck, err := faults.Heal(); err != nil || struck != want {
					t.Errorf("struck %d calls, %v, want %d", struck, err, want)
				}
				_, after = netlink.AddrList(nil, 0)
			})
			if !hidden && f.Kind != interpose.Torn && !errors.Is(struckErr, f.Errno) {
				t.Errorf("error = %v, want %v", struckErr, f.Errno)
			}
			if f.Kind == interpose.Torn && struckErr == nil {
				t.Error("nobody saw that the answer was torn")
			}
			if after != nil {
				t.Errorf("after the fault: %v", after)
			}
		})
	}
}
