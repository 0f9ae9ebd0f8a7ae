// SPDX-License-Identifier: Apache-2.0

//go:build linux

package containerd_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// What the gate adds to a pod's start: RunPodSandbox without it and with each of
// its fronts, in turns, on one node with a quiet agent. The figures are printed;
// only something gross fails.
func TestWhatTheGateAddsToAStart(t *testing.T) {
	const rounds, starts = 4, 6
	n := newNode(t, none)
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
		t.Logf("%-5s: median %s, %s to %s (%d starts)", f, median(took[f]), took[f][0], took[f][len(took[f])-1], len(took[f]))
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
