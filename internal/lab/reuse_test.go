// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab_test

import (
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
)

// The neighbours of an address remember who had it. Its next owner has another
// hardware address and must be reached with the first packet all the same.
func TestAnAddressWithAnotherOwnerIsReachedAtOnce(t *testing.T) {
	eachWiring(t, func(t *testing.T, b *bed) {
		b.small()
		b.mustArrive(b.matrix())
		b.leave("near")
		b.leave("x/b")
		b.leave("y/c")
		b.host("other", "10.244.2.200", "fd00:244:2::c8")
		b.pod("x/c", "node1", "10.244.1.6", "fd00:244:1::6")
		b.pod("y/d", "node2", "10.244.2.5", "fd00:244:2::5")
		b.mustArrive(b.matrix())
	})
}

// A bridge without ports forgets which addresses it answers for.
func TestANodeThatWasEmptyAnswersForOthersAgain(t *testing.T) {
	b := newBed(t, lab.Config{Wiring: lab.Bridge, Nodes: []string{"node1", "node2"}})
	b.small()
	b.leave("y/c")
	b.leave("near")
	b.pod("y/d", "node2", "10.244.2.6", "fd00:244:2::6")
	b.host("near", "10.244.2.200", "fd00:244:2::c8")
	b.mustArrive(b.matrix())
}

// leave takes a pod or a host away.
func (b *bed) leave(name string) {
	b.Helper()
	e := b.find(name)
	b.prober.Remove(name)
	err := b.RemoveHost(name)
	if e.Kind == lab.PodEndpoint {
		namespace, short, _ := strings.Cut(name, "/")
		err = b.RemovePod(cluster.Key{Namespace: namespace, Name: short})
	}
	if err != nil {
		b.Fatal(err)
	}
}
