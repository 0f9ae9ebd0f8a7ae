// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// What the gate adds to a pod's start: RunPodSandbox without it and with each of
// its fronts, in turns, on one node with a quiet agent, on a bridge and routed. The
// figures are printed with their quartiles; only something gross fails.
func TestWhatTheGateAddsToAStart(t *testing.T) {
	for _, wiring := range []string{"bridge", "ptp"} {
		t.Run(wiring, func(t *testing.T) { addsToAStart(t, wiring) })
	}
}

func addsToAStart(t *testing.T, wiring string) {
	const rounds, starts = 4, 6
	n := newNodeWith(t, none, wiring)
	load, _ := os.ReadFile("/proc/loadavg") // for the reader only
	t.Logf("load %s", load)
	var objects []string
	for i := range starts {
		objects = append(objects, object(fmt.Sprintf("pod%d", i)))
	}
	n.publish(objects...)
	n.startAgent()
	took := map[front][]time.Duration{}
	for range rounds {
		for _, f := range []front{none, byCNI, byNRI} {
			took[f] = append(took[f], n.measure(f, starts)...)
		}
	}
	for _, f := range []front{none, byCNI, byNRI} {
		slices.Sort(took[f])
		all := took[f]
		t.Logf("%-5s: median %s, quartiles %s and %s, %s to %s (%d starts)", f, median(all), median(all[:len(all)/2]),
			median(all[len(all)/2:]), all[0], all[len(all)-1], len(all))
	}
	for _, f := range []front{byCNI, byNRI} {
		if added := median(took[f]) - median(took[none]); added > time.Second {
			t.Errorf("%s adds %s to a start", f, added)
		}
	}
}

// measure starts pods one after the other and removes them again.
func (n *node) measure(f front, starts int) (took []time.Duration) {
	n.t.Helper()
	n.front = f
	if f == byNRI {
		defer n.startNRI().stop(syscall.SIGTERM)
	}
	var names []string
	for i := range starts {
		names = append(names, fmt.Sprintf("pod%d", i))
		took = append(took, n.run(names[i]).took)
	}
	if f != none {
		n.wantAnnounced(names...)
	}
	n.removePods()
	return took
}

func median(sorted []time.Duration) time.Duration {
	return sorted[len(sorted)/2].Round(100 * time.Microsecond)
}
