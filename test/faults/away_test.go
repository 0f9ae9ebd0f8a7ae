// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/observe"
)

// The API server fails and recovers, in several ways, under traffic. The known state stays enforced, the
// agent stays ready, and changes made in the meantime are enforced in the end.
func TestAnAPIServerThatGoesAwayUnderTraffic(t *testing.T) {
	w := newAPIWorld(t)
	r := newRelay(t, w.host, w.at)
	a := w.connect("https://" + netip.AddrPortFrom(w.at.Addr(), w.at.Port()+1).String())
	tr := w.traffic()

	delay := 200 * time.Millisecond
	if soak.Long() {
		delay = 6 * time.Second
	}
	r.delay.Store(int64(delay))
	w.toggle(true)
	w.enforces("a slow server", true)
	if code, _ := a.Get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz answers %d with a slow server, want 200: what is known is enforced", code)
	}
	r.delay.Store(0)

	r.stall()
	w.toggle(false)
	tr.pause(600)
	if !w.closed() {
		t.Error("a change arrived through a relay that stands still")
	}
	r.flow()
	w.enforces("a server that stood still", false)

	w.toggle(true)
	r.cut()
	w.enforces("connections that broke", true)

	for _, crash := range []bool{true, false} {
		dir := w.dir()
		w.stop(crash)
		r.cut() // connections that the dead process left open
		w.restartedPodStaysClosed(tr, a)
		w.launch(dir)
		w.toggle(!crash)
		w.enforces("a server that came back", !crash)
	}
	tr.finish(true)
}

// restartedPodStaysClosed gives a pod another address while no server reports it: the owner of that address
// is an unknown pod, closed in both directions.
func (w *apiWorld) restartedPodStaysClosed(tr *traffic, a *agent) {
	w.t.Helper()
	again := actor{"shop/again", "node1", []netip.Addr{netip.MustParseAddr("10.244.1.66"),
		netip.MustParseAddr("fd00:244:1::66")}}
	w.wire(again)
	p := newTap(w.t, again.name, w.ns(again.name))
	before, sent := len(tr.arrived()), tr.sent.Load()
	for i := range 2 {
		tr.extra(stranger, again.addrs[i])
		tr.extra(again.name, cast()[3].addrs[i])
	}
	tr.pause(600)
	if n := len(p.arrived()) + len(tr.arrived()) - before; n > 0 {
		w.t.Errorf("%d of %d packets passed, from or to a pod that the API has not told of", n, tr.sent.Load()-sent)
	}
	tr.usual()
	tr.pause(20) // the sender has seen it
	p.close()
	check(w.t, w.bed.RemovePod(key(again.name)))
	if s := a.until("anything", func(observe.Status) bool { return true }); !s.Ready {
		w.t.Errorf("the agent is not ready while the server is away: %q", s.NotReady)
	}
}

// A watch that is too old ends with 410; the agent must list again, and no pod may be open in the meantime.
func TestAWatchThatExpiresUnderTraffic(t *testing.T) {
	w := newAPIWorld(t)
	config, err := w.server.RESTConfig()
	check(t, err)
	at := netip.AddrPortFrom(w.at.Addr(), w.at.Port()+2)
	f := newFront(t, w.host, at, config, nil)
	w.connect("http://" + at.String())
	tr := w.traffic()
	for i := range soak.Times(1, 6) {
		f.expire(6 - 5*(i%2)) // all three watches, some of them twice, or one
		w.toggle(i%2 == 0)
		w.enforces("a watch that expired", i%2 == 0)
	}
	if f.expirations() == 0 {
		t.Error("no watch was answered with 410")
	}
	f.refuse(1)
	f.expire(0)
	on := !w.closed()
	w.toggle(on)
	w.enforces("a server that was out of order", on)
	tr.finish(true)
}

// The server's store is restored to an older state: revision numbers go back, and are used again with
// another meaning.
func TestAStoreThatIsRestoredUnderTraffic(t *testing.T) {
	w := newAPIWorld(t)
	a := w.connect("")
	tr := w.traffic()
	dir, old := w.dir(), filepath.Join(t.TempDir(), "old")
	w.stop(false)
	check(t, os.CopyFS(old, os.DirFS(dir)))
	w.launch(dir)
	for i := range 10 { // the revision runs far ahead of the copy's
		w.toggle(i%2 == 0)
	}
	w.toggle(true)
	w.enforces("before the restore", true)
	tr.pause(200)

	w.stop(true)
	check(t, os.RemoveAll(dir))
	check(t, os.CopyFS(dir, os.DirFS(old)))
	w.launch(dir)
	w.enforces("a store that was put back", false)
	w.toggle(true)
	w.enforces("a change after it", true)
	w.toggle(false)
	w.enforces("a second change after it", false)
	if code, _ := a.Get("/readyz"); code != http.StatusOK {
		t.Errorf("/readyz answers %d, want 200", code)
	}
	tr.finish(true)
}
