// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/observe"
)

// writer is another program that writes rules, as service proxies do: it deletes its chain and creates it
// again, over and over. The last turn's rules must be there in the end.
type writer struct {
	name string
	turn func(w *world, n int) error
	list []string // the command that shows the rules
}

const writerRules = 40

func writers() []writer {
	restore := func(program string) func(w *world, n int) error {
		return func(w *world, n int) error {
			_, err := w.run(iptablesInput(n), program, "--noflush", "--wait")
			return err
		}
	}
	return []writer{
		{"iptables-nft", restore("iptables-nft-restore"), []string{"iptables-nft-save"}},
		{"iptables-legacy", restore("iptables-legacy-restore"), []string{"iptables-legacy-save"}},
		{"nft", func(w *world, n int) error {
			_, err := w.run(nftInput(n), "nft", "-f", "-")
			return err
		}, []string{"nft", "list", "ruleset"}},
	}
}

// iptablesInput makes a chain of rules that contain the turn's number.
func iptablesInput(n int) string {
	text := "*filter\n:OTHERS - [0:0]\n"
	for i := range writerRules {
		text += fmt.Sprintf("-A OTHERS -s 203.0.113.%d/32 -m comment --comment turn-%d -j RETURN\n", i+1, n)
	}
	return text + "COMMIT\n"
}

func nftInput(n int) string {
	text := "add table ip others\ndelete table ip others\nadd table ip others\nadd chain ip others nat { type nat hook postrouting priority 100; }\n" +
		"add set ip others addrs { type ipv4_addr; }\n"
	for i := range writerRules {
		text += fmt.Sprintf("add rule ip others nat ip saddr 203.0.113.%d return comment \"turn-%d\"\nadd element ip others addrs { 203.0.113.%d }\n", i+1, n, i+1)
	}
	return text
}

// meddle changes sets of our own table many times: it adds and removes elements, but none that would open a
// pod.
func (w *world) meddle(times int) error {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(w.node().FD()))
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	refused := 0
	for n := range times {
		set, err := c.GetSetByName(&nftables.Table{Name: "podwall", Family: nftables.TableFamilyINet},
			[]string{"local-pods4", "non-pod-links", "ingress-links"}[n%3])
		if err != nil {
			return fmt.Errorf("finding a set of podwall's: %w", err)
		}
		element := []nftables.SetElement{{Key: []byte{203, 0, 113, byte(n)}}}
		if n%3 > 0 {
			element[0].Key = append([]byte(fmt.Sprintf("theirs%d", n%7)), make([]byte, 9)...)
		}
		if n%2 == 0 {
			err = c.SetAddElements(set, element)
		} else {
			err = c.SetDeleteElements(set, element)
		}
		if err != nil {
			return err
		}
		if c.Flush() != nil {
			refused++ // the agent was faster
		}
	}
	if refused == times {
		return fmt.Errorf("the kernel took none of %d changes", times)
	}
	return nil
}

// Many programs write at once, some to our table: none loses a rule or is refused for ever, and no packet
// leaks.
func TestManyWritersAtOnce(t *testing.T) {
	needs(t, "nft", "iptables-nft-restore", "iptables-legacy-restore")
	eachWiring(t, func(t *testing.T, w *world) {
		a := w.enforced(w.start())
		want := w.tables()
		tr := w.traffic()
		endBurst := w.burst()
		turns := w.compete(soak.Times(10, 300), soak.Times(300, 5_000))
		endBurst()
		w.publish(usual()...)
		w.enforced(a)

		start := time.Now()
		w.becomes("after the last writer", want)
		t.Logf("all is as it was %v after the last writer", time.Since(start).Round(time.Millisecond))
		for i, other := range writers() {
			out, err := w.run("", other.list[0], other.list[1:]...)
			check(t, err)
			if got := strings.Count(out, fmt.Sprintf("turn-%d", turns[i])); got != writerRules {
				t.Errorf("%s: %d rules of turn %d are there, want %d:\n%s", other.name, got, turns[i], writerRules, out)
			}
		}
		s := a.until("that it is ready", func(s observe.Status) bool { return s.Ready })
		t.Logf("turns of others: %v; %d differences repaired, %d passes failed on the way", turns, s.DriftRepairs, a.failures())
		if s.DriftRepairs == 0 {
			t.Error("the meddler changed nothing")
		}
		tr.finish(true)
	})
}

// compete lets the writers write until the slowest has had its turns, and the meddler until it has made its
// changes. It returns the last turn of each.
func (w *world) compete(atLeast, changes int) (turns [3]int) {
	w.t.Helper()
	var all sync.WaitGroup
	for i, other := range writers() {
		all.Go(func() {
			for n := range atLeast {
				if err := other.turn(w, n); err != nil {
					w.t.Errorf("%s, turn %d: %v", other.name, n, err)
				}
				turns[i] = n
			}
		})
	}
	all.Go(func() {
		if err := w.meddle(changes); err != nil {
			w.t.Error(err)
		}
	})
	all.Wait()
	return turns
}
