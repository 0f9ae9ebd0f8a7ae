// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
)

// A local user who is not root can open as many connections as he likes and write what he likes: nothing of
// it is kept, and root is answered.
func TestAnotherUserCostsNothing(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		r := recorder()
		r.record(80)
		serve(t, r)
		const connections = 400
		header := []byte("GET /flows HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 900<<10))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		apart.AsUser(t, 65534, func() {
			for range connections {
				c, err := net.Dial("unix", Socket)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = c.Write(header) // it is closed meanwhile
			}
			open, err := os.ReadDir("/proc/self/fd")
			if n := len(open); err != nil || n > connections+100 { // the clients' ends are in this process, too
				t.Errorf("%d descriptors are open, %v", n, err)
			}
		})
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
			t.Errorf("the heap has grown by %d MiB", grown>>20)
		}
		if text, err := ask(t, time.Time{}); err != nil || !strings.Contains(text, `"flow"`) {
			t.Errorf("root is told %q, %v", text, err)
		}
	})
}
