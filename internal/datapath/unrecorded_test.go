// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/testkit/interpose"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// logExpression is the name of the expression log in a message: an attribute of type 1 (NFTA_EXPR_NAME)
// and 8 bytes.
var logExpression = []byte("\x08\x00\x01\x00log\x00")

// recording are the options of an agent that records denied packets.
func recording() Options { return Options{Options: decide.Options{DeniedGroup: 7}} }

// withoutLog runs f where the kernel answers as one without nft_log.
func withoutLog(t *testing.T, faults *interpose.Netlink, f func()) {
	t.Helper()
	faults.Only = logExpression
	faults.Strike(interpose.Fault{Kind: interpose.Refused, Errno: unix.ENOENT}, unix.NETLINK_NETFILTER, 0, math.MaxInt)
	underFaults(t, faults, f)
	_, struck, err := faults.Heal()
	if err != nil || struck == 0 {
		t.Fatalf("the kernel refused %d commits (%v): the test shows nothing", struck, err)
	}
}

// unrecorded returns the problem that denied packets are not recorded.
func unrecorded(r Report) (found decide.Problem) {
	for _, p := range r.Problems {
		if p.Subject == "records of denied flows" {
			found = p
		}
	}
	return found
}

// records reports whether the table has a rule that records.
func records(t *testing.T) bool { return strings.Contains(listing(t), "group 7") }

// A kernel that cannot record denied packets enforces all the same, from the first commit on, and is asked
// again at each verification.
func TestAKernelThatCannotRecordEnforcesAllTheSame(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, recording())
		withoutLog(t, &interpose.Netlink{}, func() {
			for _, peer := range []string{first, second} {
				r, err := d.Apply(t.Context(), isolated(peer))
				said := unrecorded(r)
				if err != nil || len(r.Problems) != 1 || said.Blocking || !strings.Contains(said.Text, "no such file") ||
					!strings.Contains(said.Cure, "CONFIG_NFT_LOG") {
					t.Errorf("problems = %+v, %v, want one that names what is missing", r.Problems, err)
					return
				}
				if text := listing(t); !strings.Contains(text, peer) || !strings.Contains(text, "jump ingress4-web") {
					t.Errorf("the program is not in force:\n%s", text)
				}
				if err := d.Verify(); err != nil {
					t.Error(err)
				}
			}
			if r, err := d.Apply(t.Context(), isolated(second)); err != nil || unrecorded(r).Text == "" || !r.Full {
				t.Errorf("after it was tried again: %+v %v", r.Problems, err)
			}
			before := d.conn.Transactions()
			if _, err := d.Apply(t.Context(), isolated(first)); err != nil || d.conn.Transactions() != before+1 {
				t.Errorf("a change takes %d transactions: %v", d.conn.Transactions()-before, err)
			}
		})
		verify(t, d)
		if healthy(t, d, isolated(first)); !records(t) {
			t.Errorf("the kernel can record now, and nothing does:\n%s", listing(t))
		}
	})
}

// An agent that is told to record keeps the rules of its predecessor in force where the kernel cannot.
func TestATableWithoutRecordsStaysWhereTheKernelCannotRecord(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		healthy(t, open(t, Options{}), isolated(first))
		d := open(t, recording())
		withoutLog(t, &interpose.Netlink{}, func() {
			passes := passesUntilTaken(t, d, isolated(first, second))
			if text := listing(t); !strings.Contains(text, second) || passes < 2 {
				t.Errorf("it does not go on after %d passes:\n%s", passes, text)
			}
		})
	})
}

// passesUntilTaken applies until the kernel takes the program, and wants the isolated pod closed after each pass.
func passesUntilTaken(t *testing.T, d *Datapath, p *program.Program) (passes int) {
	t.Helper()
	for passes < 5 {
		passes++
		_, err := d.Apply(t.Context(), p)
		if !strings.Contains(listing(t), "jump ingress4-web") {
			t.Errorf("after pass %d, %v: the pod is open:\n%s", passes, err, listing(t))
		}
		if err == nil {
			break
		}
	}
	return passes
}

// Where the kernel can neither record nor take some object, both are found.
func TestRecordsAndObjectsThatAreRefusedAreBothFound(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, recording())
		withoutLog(t, &interpose.Netlink{}, func() {
			r, err := d.Apply(t.Context(), withRefused(isolated(first)))
			if err != nil || !strings.Contains(leftOut(r).Text, "chain ingress4-x1 of x/no-set") || unrecorded(r).Text == "" {
				t.Errorf("%+v %v", r.Problems, err)
			}
		})
		if text := listing(t); !strings.Contains(text, first) { // outside, as it may end the test
			t.Errorf("others did not go on:\n%s", text)
		}
	})
}

// Where it is not the records that the kernel refuses, they stay.
func TestRecordsAreNotBlamedForOtherObjects(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, recording())
		r := apply(t, d, withRefused(isolated(first)))
		if leftOut(r).Text == "" || unrecorded(r).Text != "" || !records(t) {
			t.Errorf("%+v\n%s", r.Problems, listing(t))
		}
		healthy(t, d, isolated(first, second))
		nftRun(t, "delete element inet podwall pods4-peers { "+second+" }")
		if r, err := d.Apply(t.Context(), isolated(first)); err == nil || unrecorded(r).Text != "" {
			t.Fatalf("%+v %v, want the refusal of a commit", r.Problems, err)
		}
		if healthy(t, d, isolated(first)); !records(t) {
			t.Errorf("nothing is recorded after another program's change:\n%s", listing(t))
		}
	})
}
