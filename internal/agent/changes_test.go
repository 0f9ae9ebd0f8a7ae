// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/logging"
)

// With -v=2 the log names each object that changed, with what differs; below it none.
func TestObjectsAreNamedAtVerbosityTwo(t *testing.T) {
	web := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: "web"}, Node: "n1"}
	moved := *web
	moved.IPs, moved.Terminating = []netip.Addr{netip.MustParseAddr("10.0.0.1")}, true
	declared := *web
	declared.Declared = &cluster.Declared{}
	d := cluster.Delta{Revision: 7,
		Namespaces: []cluster.Change[cluster.Namespace]{{Old: &cluster.Namespace{Name: "shop"}, New: &cluster.Namespace{Name: "shop", Labels: cluster.NewLabels(map[string]string{"a": "b"})}}},
		Nodes:      []cluster.Change[cluster.Node]{{Old: &cluster.Node{Name: "n2"}}},
		Pods:       []cluster.Change[cluster.Pod]{{Old: web, New: &moved}, {New: web}, {Old: web, New: &declared}},
		Policies:   []cluster.Change[cluster.Policy]{{Old: &cluster.Policy{Key: web.Key}, New: &cluster.Policy{Key: web.Key}}},
	}
	want := []string{
		`kind=Namespace object=shop change=changed fields=labels`,
		`kind=Node object=n2 change=deleted fields=""`,
		`kind=Pod object=shop/web change=changed fields=addresses,terminating`,
		`kind=Pod object=shop/web change=added fields=""`,
		`kind=Pod object=shop/web change=changed fields="ports or annotations"`,
		`kind=NetworkPolicy object=shop/web change=changed fields=spec`,
	}
	for verbosity := range 3 {
		var out bytes.Buffer
		l := &Loop{Log: logging.New("text", verbosity, &out, false), ready: true}
		l.nameChanges(d)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		switch {
		case verbosity < 2 && out.Len() > 0:
			t.Errorf("-v=%d: %s", verbosity, &out)
		case verbosity == 2 && len(lines) != len(want):
			t.Errorf("%d lines, want %d:\n%s", len(lines), len(want), &out)
		case verbosity == 2:
			for i, line := range lines {
				if !strings.Contains(line, want[i]) || !strings.Contains(line, "level=DEBUG ") || !strings.Contains(line, "revision=7") {
					t.Errorf("line %d is %q, want %q", i, line, want[i])
				}
			}
		}
	}
}

// What the log names is bounded: a namespace's label may change what 100,000 pods are.
func TestNamedObjectsAreBounded(t *testing.T) {
	var d cluster.Delta
	for i := range 3 * maxNamed {
		d.Pods = append(d.Pods, cluster.Change[cluster.Pod]{New: &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: fmt.Sprint("p", i)}}})
	}
	for ready, want := range map[bool]int{true: maxNamed + 1, false: 1} {
		var out bytes.Buffer
		l := &Loop{Log: logging.New("text", 2, &out, false), ready: ready}
		l.nameChanges(d)
		if n := strings.Count(out.String(), "\n"); n != want {
			t.Errorf("ready %t: %d lines for %d pods, want %d", ready, n, len(d.Pods), want)
		}
		if ready && !strings.Contains(out.String(), fmt.Sprintf("count=%d", 2*maxNamed)) {
			t.Error("how many are not named is not said")
		}
	}
}
