// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// walk makes one decision after another on a node where everything may happen, and
// keeps beside the decider what the kernel would hold.
type walk struct {
	*scene
	twin    *Decider // gets the same
	options Options
	program *program.Program
	// What was committed last, and what is refused since.
	committed *program.Program
	refused   map[program.Refused]bool
	lost      map[netip.Addr]time.Time // since when an address leads elsewhere
	believed  map[netip.Addr]bool      // by the decision before
}

func drawAddr(t *rapid.T, what string) string {
	return fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 4).Draw(t, what))
}

func drawProgram(t *rapid.T) *program.Program {
	pods := map[string]program.Pod{}
	for range rapid.IntRange(0, 4).Draw(t, "pods") {
		a, name := drawAddr(t, "address"), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
		if pods[a] = pod(a, name); rapid.Bool().Draw(t, "open") {
			pods[a] = openPod(a, name)
		}
	}
	peers := rapid.SampledFrom([][]string{nil, {friend}, {friend, stranger}}).Draw(t, "peers")
	return letting(peers, slices.Collect(maps.Values(pods))...)
}

func newWalk(t *rapid.T) *walk {
	o := Options{OpenUnknown: rapid.Bool().Draw(t, "unknown pods are open"),
		KeepConnections: rapid.IntRange(0, 3).Draw(t, "keep") == 0}
	return &walk{scene: newScene(o), twin: New(o), options: o, program: drawProgram(t),
		refused: map[program.Refused]bool{},
		lost:    map[netip.Addr]time.Time{}, believed: map[netip.Addr]bool{}}
}

// happen is one thing that happens to the node.
func (w *walk) happen(t *rapid.T) {
	a := at(drawAddr(t, "where"))
	switch rapid.IntRange(0, 8).Draw(t, "what") {
	case 0, 1:
		w.program = drawProgram(t)
	case 2:
		w.w.Paths[a] = linkOf(a)
	case 3:
		w.w.Paths[a] = inet.Path{Index: 3, Link: "br0", Bridge: true, Uplink: rapid.Bool().Draw(t, "uplink"),
			Port: "port"}
	case 4:
		w.w.Paths[a] = inet.Path{Index: 4, Link: "eth0", Elsewhere: true}
	case 5:
		delete(w.w.Paths, a)
	case 6:
		w.w.Clean[a] = Search{Link: w.w.Paths[a].Index, Empty: rapid.Bool().Draw(t, "empty")}
	case 7:
		w.w.Searching = rapid.Bool().Draw(t, "beside")
	case 8:
		w.c.Found = append(w.c.Found, connection(rapid.SampledFrom([]string{friend, stranger}).Draw(t, "from"),
			a.String()))
	}
	w.w.Now = w.w.Now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, Grace, lenience}).Draw(t, "time"))
}

// step decides, checks what must be true of the decision, and commits it unless
// the kernel refuses.
func (w *walk) step(t *rapid.T) {
	before := w.copy()
	out := w.d.Decide(w.program, w.program, w.w, w.c)
	if after := w.copy(); !reflect.DeepEqual(before, after) {
		t.Fatalf("deciding changed what was read:\n%+v\n%+v", before, after)
	}
	other := w.twin.Decide(w.program, w.program, w.w, w.c)
	if a, b := text(out), text(other); a != b {
		t.Fatalf("two deciders that got the same decide otherwise:\n%s\n%s", a, b)
	}
	w.wiring(t, out)
	w.holding(t, out)
	w.ending(t, out)
	if rapid.IntRange(0, 5).Draw(t, "the kernel refuses") == 0 {
		return
	}
	w.d.Committed(&out)
	w.twin.Committed(&other)
	w.committed, w.c.Found = out.Program, nil
	for _, pod := range out.Known.Pods {
		delete(w.w.Clean, pod.Addr)
	}
	w.note(t, out)
}

// cut ends what was found by the program in force.
func (w *walk) cut(t *rapid.T) {
	if w.committed == nil {
		return
	}
	out, other := w.d.End(w.w.Now, w.c), w.twin.End(w.w.Now, w.c)
	if a, b := text(out), text(other); a != b || out.Program != w.committed {
		t.Fatalf("two deciders that got the same end otherwise:\n%s\n%s", a, b)
	}
	w.ending(t, out)
	w.d.Committed(&out)
	w.twin.Committed(&other)
	w.c.Found = nil
	w.note(t, out)
}

// note keeps what the kernel refuses by now.
func (w *walk) note(t *rapid.T, out Decision) {
	for r := range out.Admit {
		delete(w.refused, r)
	}
	for r := range out.Refuse {
		w.refused[r] = true
	}
	if got := w.d.CountRefused(); got != len(w.refused) || out.Node.Cut != (got > 0) {
		t.Fatalf("%d are refused, the kernel has %d, its sets are asked: %t", got, len(w.refused), out.Node.Cut)
	}
}

// copy is what a decision must not change.
func (w *walk) copy() any {
	return []any{w.w.Now, maps.Clone(w.w.Paths), maps.Clone(w.w.Clean), slices.Clone(w.w.Open),
		slices.Clone(w.w.RememberedBridges),
		slices.Clone(w.c.Found),
		slices.Clone(w.program.Pods), slices.Clone(w.program.Chains), slices.Clone(w.program.Sets)}
}

// text is a decision as it can be compared.
func text(d Decision) string {
	d.Judge, d.Learn = nil, nil
	return fmt.Sprintf("%+v %v %v %v", d.Findings, d.Node, addrsOf(d.Program), addrsOf(d.Known)) +
		fmt.Sprintf("%v %v %v %v %v %v", d.Refuse, d.Admit, d.End, touched(d.Scan), d.Held.Addrs, d.Held.Added)
}

// wiring: every pod of the program that something leads to is bound to where it is,
// and an address that leads elsewhere for long is no pod's.
func (w *walk) wiring(t *rapid.T, out Decision) {
	for _, bound := range out.Node.Attached {
		if path := w.w.Paths[bound.Addr]; path.Link != bound.Link || path.Uplink || !Owns(out.Program, bound.Addr) {
			t.Fatalf("%+v is bound, the path is %+v", bound, path)
		}
	}
	for _, pod := range out.Program.Pods {
		path, there := w.w.Paths[pod.Addr]
		bound := slices.ContainsFunc(out.Node.Attached, func(at program.Attachment) bool { return at.Addr == pod.Addr })
		if bound != (there && !path.Uplink) {
			t.Fatalf("%v with the path %+v is bound: %t", pod, path, bound)
		}
	}
	for _, pod := range w.program.Pods {
		path := w.w.Paths[pod.Addr]
		if out := slices.Contains(out.Elsewhere, pod.Addr); out && (!path.Elsewhere || w.options.OpenUnknown) {
			t.Fatalf("%v with the path %+v is left out", pod, path)
		}
		isolated := pod.Ingress != "" && path.Link != "" && !path.Uplink && !path.Elsewhere
		if isolated && !slices.Contains(out.Node.Ingress, path.Link) {
			t.Fatalf("nobody is closed on %s, where %v is", path.Link, pod)
		}
	}
	for a := range w.w.Paths {
		if since, lost := w.lost[a]; !w.w.Paths[a].Elsewhere {
			delete(w.lost, a)
		} else if !lost {
			w.lost[a] = w.w.Now
		} else if w.w.Now.Sub(since) >= 2*Grace && Owns(out.Program, a) && !w.options.OpenUnknown && !w.d.newly(a,
			w.w.Now) {
			t.Fatalf("%s leads elsewhere for %s and is a pod's", a, w.w.Now.Sub(since))
		}
	}
	if out.CheckAgain < 0 || out.CheckAgain > Grace {
		t.Fatalf("the next look is after %s", out.CheckAgain)
	}
}

// newly reports whether the pod at the address is misled for less than the grace.
func (d *Decider) newly(a netip.Addr, now time.Time) bool { return now.Sub(d.misled[a].since) < Grace }

// holding: a rule lets somebody through to a new owner of an address only if nothing
// from before is left, or if nobody could look.
func (w *walk) holding(t *rapid.T, out Decision) {
	held := map[netip.Addr]bool{}
	for _, a := range out.Held.Addrs {
		held[a] = true
	}
	if len(out.Known.Pods)+len(held) != len(w.program.Pods)-len(out.Elsewhere) {
		t.Fatalf("known are %v, held %v, of %v", addrsOf(out.Known), out.Held.Addrs, addrsOf(w.program))
	}
	for _, pod := range out.Program.Pods {
		switch {
		case held[pod.Addr] && !closedByHold(pod):
			t.Fatalf("%v is held and judged by %q", pod, pod.Ingress)
		case held[pod.Addr], !w.w.Searching, w.committed == nil:
			continue
		}
		was, known := podAt(w.committed, pod.Addr)
		path := w.w.Paths[pod.Addr]
		found, clean := w.w.Clean[pod.Addr]
		switch {
		case known && was.Name == pod.Name && was.ID == pod.ID && !closedByHold(was):
		case clean && found.Link == path.Index && (!known || closedByHold(was) && was.Name == pod.Name):
		case !known && (w.options.OpenUnknown || path.Uplink):
		default:
			t.Fatalf("%v is programmed, before it was %+v (%t), clean %t", pod, was, known, clean)
		}
	}
}

// ending: what ends was found, and is denied by the program; nothing that was found
// and is denied goes on, and what would revive it is refused.
func (w *walk) ending(t *rapid.T, out Decision) {
	ended := map[inet.Tuple]cut.Cut{}
	for _, c := range out.End {
		ended[c.Entry.Orig] = c
		if !slices.ContainsFunc(w.c.Found, func(f cut.Cut) bool { return f.Entry == c.Entry }) {
			t.Fatalf("%v ends and was not found", c)
		}
	}
	for _, f := range w.c.Found {
		denied := program.Eval(out.Program, program.Flow{Protocol: inet.TCP, Src: f.Entry.Orig.Src,
			Dst:     f.Entry.Orig.Dst,
			DstPort: f.Entry.Orig.DstPort}) == program.Drop && !w.options.KeepConnections
		c, ends := ended[f.Entry.Orig]
		if ends != denied {
			t.Fatalf("%v is denied %t, ends %t", f, denied, ends)
		}
		_, refused := out.Refuse[c.Revival]
		if ends && !refused && (!w.refused[c.Revival] || out.Admit[c.Revival]) {
			t.Fatalf("%v ends and may be revived", c)
		}
	}
}

func TestEveryDecisionIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "happens") {
				w.happen(t)
			}
			if rapid.IntRange(0, 3).Draw(t, "a cut") == 0 {
				w.cut(t)
				continue
			}
			w.step(t)
		}
	})
}

// Whatever came before: once the looks are made, the same program again asks for
// nothing, and everybody is programmed whom something leads to.
func TestDecisionsComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWalk(t)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			w.happen(t)
			w.step(t)
		}
		w.wire(w.program).looked(w.program)
		w.c.Found, w.w.Now = nil, w.w.Now.Add(2*Grace)
		w.commit(w.program) // what moved is closed first
		w.looked(w.program).commit(w.program)
		out := w.looked(w.program).commit(w.program)
		if len(out.Held.Addrs)+len(out.Elsewhere)+len(out.Scan)+len(out.Recheck)+len(out.Refuse)+len(out.End) > 0 ||
			!slices.Equal(addrsOf(out.Program), addrsOf(w.program)) {
			t.Fatalf("held %v, elsewhere %v, scanned %v, programmed %v of %v",
				out.Held.Addrs, out.Elsewhere, touched(out.Scan), addrsOf(out.Program), addrsOf(w.program))
		}
	})
}
