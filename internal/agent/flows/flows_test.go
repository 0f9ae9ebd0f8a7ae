// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nflog"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// isolated is the address of a pod, and a view in which a policy isolates it.
func isolated() (netip.Addr, *denied.View) {
	a, k := netip.MustParseAddr("10.0.0.1"), cluster.Key{Namespace: "shop", Name: "web"}
	by := policy.Isolation{Isolated: true, Policies: []*policy.Resolved{{Policy: &cluster.Policy{Key: k}}}}
	pod := &cluster.Pod{Key: k, IPs: []netip.Addr{a}}
	return a, denied.NewView(&policy.Layout{Workloads: []policy.Workload{{Pod: pod, Ingress: by}}}, &program.Program{})
}

func recorder() *Recorder {
	r := &Recorder{Node: "n", Count: func(denied.Record) {}, Lost: func(uint64) {}, Failed: func(error) {},
		Owners: func([]netip.Addr) map[netip.Addr]cluster.Owner { return nil }}
	return r.Begin()
}

// record makes records of one packet to each port.
func (r *Recorder) record(ports ...uint16) {
	a, v := isolated()
	var g denied.Gatherer
	for _, port := range ports {
		g.Add(v, denied.By{Direction: program.Ingress}, denied.Flow{Src: a.Next(), Dst: a, Protocol: inet.TCP, Port: port}, time.Now())
	}
	r.keep(g.Flush(r.Node, denied.Names{Owners: r.Owners, Services: r.Services}))
}

// serve answers for the recorder, in this network namespace, until the test ends.
func serve(t *testing.T, r *Recorder) {
	t.Helper()
	pages := map[string]http.Handler{"/statusz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "the status")
	})}
	s := &Server{Recorder: r, Node: "n", Pages: pages, Denied: func() (uint64, error) { return 10, nil }}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func ask(t *testing.T, since time.Time) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := Ask(t.Context(), &out, since, false)
	return out.String(), err
}

// Root is told; another user of the node is not, and cannot pass for the agent.
func TestOnlyRootIsTold(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		r := recorder()
		r.record(80, 443)
		t.Run("an agent", func(t *testing.T) {
			serve(t, r)
			text, err := ask(t, time.Time{})
			if err != nil || strings.Count(text, `"flow"`) != 2 || !strings.Contains(text, `"suppressed":8`) {
				t.Errorf("root is told %q, %v", text, err)
			}
			if text, err = ask(t, time.Now().Add(time.Hour)); err != nil || strings.Contains(text, `"flow"`) {
				t.Errorf("of what is to come root is told %q, %v", text, err)
			}
			var page bytes.Buffer
			if err := Page(t.Context(), &page, "/statusz"); err != nil || page.String() != "the status" {
				t.Errorf("of a page root is told %q, %v", &page, err)
			}
			if err := Page(t.Context(), &page, "/secret"); err == nil || !strings.Contains(err.Error(), "404") {
				t.Errorf("of a page that does not exist root is told %q, %v", &page, err)
			}
			apart.AsUser(t, 65534, func() {
				for _, path := range []string{"/flows?since=2026-01-01T00:00:00Z", "/statusz"} {
					if said := raw(t, path); strings.Contains(said, "200") || strings.Contains(said, "shop") ||
						strings.Contains(said, "the status") {
						t.Errorf("%s: another user is told %q", path, said)
					}
				}
			})
			if err := (&Server{}).Listen(t.Context()); err == nil {
				t.Error("a second agent has the socket, too")
			}
		})
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		apart.AsUser(t, 65534, func() {
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: Socket}); err != nil {
				t.Error(err)
			}
			if err := unix.Listen(fd, 16); err != nil {
				t.Error(err)
			}
		})
		if text, err := ask(t, time.Time{}); err == nil || !strings.Contains(err.Error(), "is no agent") || text != "" {
			t.Errorf("the other user's answer is %q, %v", text, err)
		}
		if err := (&Server{}).Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "user 65534") {
			t.Errorf("an agent that finds its socket taken says %v", err)
		}
	})
}

// raw asks on this thread, without a goroutine that has another user.
func raw(t *testing.T, path string) string {
	t.Helper()
	conn, err := net.Dial("unix", Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
	said, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, unix.ECONNRESET) { // what was asked is not read
		t.Fatal(err)
	}
	return string(said)
}

// Who follows gets what comes; who does not read delays nobody, and is told what it missed.
func TestAFollowerThatDoesNotReadDelaysNobody(t *testing.T) {
	r := recorder()
	_, _, f := r.since(time.Time{}, true)
	ports := make([]uint16, 2*followerRoom)
	for i := range ports {
		ports[i] = uint16(i + 1)
	}
	r.record(ports...)
	if n := r.missed(f); n != followerRoom || r.missed(f) != 0 {
		t.Errorf("missed %d, want %d, said once", n, followerRoom)
	}
	if first := <-f.records; first.Port != 1 {
		t.Errorf("the first record is of port %d", first.Port)
	}
	r.leave(f)
	r.record(1)
	if n := r.missed(f); n != 0 {
		t.Errorf("after it left, %d were missed", n)
	}
}

// Packets that are not of our rules, or that nobody can read, make no record.
func TestOtherPacketsAreNotRecorded(t *testing.T) {
	r := recorder()
	var g denied.Gatherer
	a, v := isolated()
	ip := append(make([]byte, 12), append(a.Next().AsSlice(), a.AsSlice()...)...)
	ip[0] = 0x45
	good := nflog.Packet{Prefix: ruleset.DeniedIngress, Payload: ip}
	r.add(&g, good, time.Now()) // nothing is enforced yet
	r.Enforce(v)
	r.add(&g, nflog.Packet{Prefix: "theirs", Payload: ip}, time.Now())
	r.add(&g, nflog.Packet{Prefix: ruleset.DeniedIngress, Payload: ip[:10]}, time.Now())
	if !g.Empty() {
		t.Error("one of them is gathered")
	}
	if r.add(&g, good, time.Now()); g.Empty() {
		t.Error("a packet of ours is not gathered")
	}
}

// Without a group the answer says so, and more questions than there is room for are refused.
func TestAnswersWithoutARecorder(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		serve(t, nil)
		text, err := ask(t, time.Time{})
		var l denied.Line
		if err != nil || json.Unmarshal([]byte(text), &l) != nil || l.Summary == nil || l.Summary.Recording ||
			!strings.Contains(l.Summary.Why, "--denied-flows-group") {
			t.Errorf("%q, %v", text, err)
		}
	})
}

func TestQuestionsAreBounded(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		serve(t, recorder())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		follow := func() error { return Ask(ctx, &lineCounter{seen: make(chan int, 1)}, time.Time{}, true) }
		answers := make(chan error)
		for range maxFollowers {
			seen := make(chan int, 1)
			go func() { answers <- Ask(ctx, &lineCounter{seen: seen}, time.Time{}, true) }()
			<-seen
		}
		if err := follow(); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("one more is answered: %v", err)
		}
		if _, err := ask(t, time.Time{}); err != nil {
			t.Errorf("who does not follow finds no place: %v", err)
		}
		cancel()
		for range maxFollowers {
			if err := <-answers; err != nil {
				t.Errorf("who stops following: %v", err)
			}
		}
	})
}

// lineCounter tells when something was written.
type lineCounter struct{ seen chan int }

func (c *lineCounter) Write(b []byte) (int, error) {
	select {
	case c.seen <- len(b):
	default:
	}
	return len(b), nil
}

// What is on its way to the recorder is not suppressed, and what has no record is, however many there are
// on their way.
func TestPacketsOnTheirWayAreNotSuppressed(t *testing.T) {
	for _, missing := range []uint64{0, 4} {
		r := recorder()
		r.record(1, 2)
		r.note(1)
		asked := uint64(0)
		s := &Server{Recorder: r, Denied: func() (uint64, error) {
			if asked++; asked == 3 { // the next look finds what came meanwhile
				r.note(5)
			}
			return 8 + missing, nil
		}}
		if n, err := s.suppressed(t.Context(), 0); n != missing || err != nil {
			t.Errorf("%d packets are suppressed, want %d; %v", n, missing, err)
		}
	}
	r := recorder()
	r.note(7)
	r.keep([]denied.Record{{Count: 6}})
	if n := r.known(); n != 6 {
		t.Errorf("after a flush %d packets are known, want 6", n)
	}
}
