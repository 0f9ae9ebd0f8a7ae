// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

const friend, stranger = "10.0.9.1", "10.0.9.2"

// What a change asks to scan, and which connections end before it.
func TestWhatAChangeAsksToScan(t *testing.T) {
	web := pod("10.0.0.1", "web")
	db := openPod("10.0.0.2", "db")
	base := letting([]string{friend, stranger}, web, db)
	isolatedDB := db
	isolatedDB.Ingress = "ingress4-web"
	for _, c := range []struct {
		name   string
		next   *program.Program
		beside bool
		scan   []string
		former []string
		moved  []string
		alter  func(s *scene)
		later  []string
	}{
		{"nothing", base, true, nil, nil, nil, nil, nil},
		{"a peer more", letting([]string{friend, stranger, "10.0.9.3"}, web, db), true, []string{"10.0.0.1"}, nil, nil, nil, nil},
		{"a peer less", letting([]string{friend}, web, db), true, []string{"10.0.0.1"}, nil, nil, nil, nil},
		{"a pod is isolated", letting([]string{friend, stranger}, web, isolatedDB), true, []string{"10.0.0.2"}, nil,
			nil, nil, nil},
		{"a pod is open", letting([]string{friend, stranger}, openPod("10.0.0.1", "web"), db), true, nil, nil, nil, nil, nil},
		{"a pod goes", letting([]string{friend, stranger}, web), true, []string{"-10.0.0.2"}, nil, nil, nil, nil},
		{"a pod comes", letting([]string{friend, stranger}, web, db, openPod("10.0.0.3", "new")), true,
			nil, nil, nil, nil, []string{"10.0.0.3"}},
		{"a pod comes, the search failed", letting([]string{friend, stranger}, web, db, openPod("10.0.0.3", "new")), true,
			[]string{"10.0.0.3"}, nil, nil, func(s *scene) {
				s.w.Clean[at("10.0.0.3")] = Search{Link: s.w.Paths[at("10.0.0.3")].Index}
			}, nil},
		{"a pod comes, nothing leads to it", letting([]string{friend, stranger}, web, db, openPod("10.0.0.3", "new")), true,
			[]string{"10.0.0.3"}, nil, nil, func(s *scene) {
				delete(s.w.Paths, at("10.0.0.3"))
				s.w.Clean[at("10.0.0.3")] = Search{Empty: true}
			}, nil},
		{"a pod comes, nobody looks beside", letting([]string{friend, stranger}, web, db, openPod("10.0.0.3", "new")),
			false,
			[]string{"10.0.0.3"}, []string{"10.0.0.3"}, nil, nil, nil},
		{"an address moves, nobody looks beside", letting([]string{friend, stranger}, web, openPod("10.0.0.2", "next")),
			false,
			[]string{"10.0.0.2"}, []string{"10.0.0.2"}, []string{"10.0.0.2"}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(Options{}).settle(base)
			s.w.Searching = c.beside
			if s.wire(c.next).looked(c.next); c.alter != nil {
				c.alter(s)
			}
			out := s.commit(c.next)
			if got := touched(out.Recheck); !slices.Equal(got, c.later) {
				t.Errorf("scanned later are %v, want %v", got, c.later)
			}
			if got := touched(out.Scan); !slices.Equal(got, c.scan) {
				t.Errorf("scanned are %v, want %v", got, c.scan)
			}
			if got := texts(out.Former); !slices.Equal(got, c.former) {
				t.Errorf("former owners' are %v, want %v", got, c.former)
			}
			if got := texts(out.Moved); !slices.Equal(got, c.moved) {
				t.Errorf("moved are %v, want %v", got, c.moved)
			}
			if len(out.Former)+len(out.Moved) > 0 && out.Learn == nil {
				t.Error("nobody can judge their connections")
			}
		})
	}
}

// The first decision of a process has everything scanned, unless connections are
// kept: nobody knows what was judged by what.
func TestTheFirstDecisionHasEverythingScanned(t *testing.T) {
	p := letting([]string{friend}, pod("10.0.0.1", "web"))
	for keep, want := range map[bool]bool{false: true, true: false} {
		s := newScene(Options{KeepConnections: keep}).wire(p)
		s.w.Recorded = p.Pods
		out := s.commit(p)
		if whole := out.Scan.All().Whole; whole != want {
			t.Errorf("connections are kept %t: everything is scanned %t", keep, whole)
		}
		if whole := s.commit(p).Scan.All().Whole; whole {
			t.Errorf("connections are kept %t: everything is scanned once more", keep)
		}
	}
}

// The same program twice asks for nothing.
func TestTheSameProgramAsksForNothing(t *testing.T) {
	s, p := wired(Options{})
	s.commit(p)
	out := s.commit(p)
	if len(out.Refuse)+len(out.Admit)+len(out.Again)+len(out.End)+len(out.Scan)+len(out.Former)+len(out.Moved)+len(out.Held.Addrs) > 0 ||
		out.Learn != nil || out.Judge != nil {
		t.Errorf("it asks for %+v", out)
	}
}

// A connection that a scan found is ended if it is still denied, and what would
// revive it is refused; what is allowed by now is left.
func TestWhatIsFoundIsJudgedAgain(t *testing.T) {
	web := pod("10.0.0.1", "web")
	strict, lax := letting([]string{friend}, web), letting([]string{friend, stranger}, web)
	denied := connection(stranger, "10.0.0.1")
	twice := []cut.Cut{denied, denied}
	s := newScene(Options{}).settle(strict)
	s.c.Found = append(twice, connection(friend, "10.0.0.1"))
	out := s.commit(strict)
	if len(out.End) != 1 || out.End[0].Entry != denied.Entry || out.End[0].Reason != cut.Ingress ||
		out.End[0].Chain != "ingress4-web" {
		t.Fatalf("ended are %v", out.End)
	}
	if len(out.Refuse) != 1 || out.Refuse[out.End[0].Revival] != "shop" || !out.Node.Cut || s.d.CountRefused() != 1 {
		t.Errorf("refused are %v, the sets are asked: %t", out.Refuse, out.Node.Cut)
	}
	s.c.Found = twice
	if out := s.commit(strict); len(out.End) != 1 || len(out.Refuse) != 0 {
		t.Errorf("found again: %d ended, %d refused", len(out.End), len(out.Refuse))
	}
	s.c.Found = twice
	if out := s.commit(lax); len(out.End) != 0 || len(out.Admit) != 0 || !out.Release {
		t.Errorf("allowed by now: %d ended, %d admitted, released later %t", len(out.End), len(out.Admit), out.Release)
	}
}

// A cut judges by the program in force and by the addresses that the node has by
// now: what the node itself began is never ended.
func TestACutKnowsWhatTheNodeHas(t *testing.T) {
	web := pod("10.0.0.1", "web")
	strict := letting([]string{friend}, web)
	s := newScene(Options{}).settle(strict)
	if !s.d.Judges() {
		t.Fatal("nothing is in force")
	}
	s.c.Found = []cut.Cut{connection(stranger, "10.0.0.1")}
	s.c.Node = []netip.Addr{at(stranger)}
	if out := s.end(); len(out.End) > 0 || out.Learn == nil || !slices.Equal(out.Learn.Node, s.c.Node) {
		t.Errorf("of the node's own connections end %v, learnt %+v", out.End, out.Learn)
	}
	s.c.Found, s.c.More = []cut.Cut{connection("10.0.9.3", "10.0.0.1")}, true
	if out := s.end(); len(out.End) != 1 || len(out.Refuse) != 1 || out.Learn != nil || !out.More ||
		out.Program != strict {
		t.Errorf("of another's end %v, refused %v, learnt %+v, more %t", out.End, out.Refuse, out.Learn, out.More)
	}
	s.c.Node, s.c.More = nil, false
	if out := s.commit(strict); out.Learn == nil || len(out.Learn.Node) > 0 {
		t.Error("a pass does not learn that the node lost the address")
	}
	s.d.Forget()
	if s.d.Judges() {
		t.Error("after the rules were away on purpose something is in force")
	}
}

// A commit that fails forgets neither what the kernel refuses nor that something is
// to be released.
func TestAFailedCommitForgetsNothing(t *testing.T) {
	p := letting([]string{friend}, pod("10.0.0.1", "web"))
	s := newScene(Options{}).wire(p)
	refused := program.Refused{Protocol: inet.UDP, Src: at("10.0.0.1"), Dst: at(stranger), SrcPort: 80, DstPort: 40000}
	s.w.Recorded, s.c.Read, s.c.Refused = p.Pods, true, []program.Refused{refused}
	for range 2 { // the first one is not committed
		if out := s.d.Decide(p, p, s.w, s.c); !out.Node.Cut || s.d.CountRefused() != 1 {
			t.Fatalf("%d are refused", s.d.CountRefused())
		}
	}
}

// With --on-policy-change=keep nothing ends because it is denied, but what an
// address was used for before does.
func TestConnectionsAreKeptWhereThatIsWanted(t *testing.T) {
	p := letting([]string{friend}, pod("10.0.0.1", "web"))
	s := newScene(Options{KeepConnections: true}).settle(p)
	gone := connection(stranger, "10.0.0.7")
	gone.Reason = cut.Reused
	s.c.Found = []cut.Cut{connection(stranger, "10.0.0.1"), gone}
	out := s.commit(p)
	if len(out.End) != 1 || out.End[0].Addr != at("10.0.0.7") || len(out.Refuse) != 0 {
		t.Errorf("ended are %v, refused %v", out.End, out.Refuse)
	}
	if chain := out.Learn.Program.Pods[0].Ingress; chain != "" {
		t.Errorf("connections are judged by %s", chain)
	}
}

// What was found because an address had no pod is left if it has one by now.
func TestAnAddressThatHasAPodAgainIsLeft(t *testing.T) {
	p := letting([]string{friend}, pod("10.0.0.1", "web"))
	s := newScene(Options{}).settle(p)
	reused := connection(stranger, "10.0.0.1")
	reused.Reason = cut.Reused
	s.c.Found = []cut.Cut{reused}
	if out := s.commit(p); len(out.End) > 0 {
		t.Errorf("ended are %v", out.End)
	}
}

// What is allowed again stays refused for the lenience, and goes at its end; what
// is denied again meanwhile stays.
func TestWhatIsAllowedAgainIsReleasedLater(t *testing.T) {
	web := pod("10.0.0.1", "web")
	strict, lax := letting([]string{friend}, web), letting([]string{friend, stranger}, web)
	s := newScene(Options{}).settle(strict)
	s.c.Found = []cut.Cut{connection(stranger, "10.0.0.1")}
	s.commit(strict)
	after := func(d time.Duration, p *program.Program) (admitted int) {
		s.w.Now = s.w.Now.Add(d)
		return len(s.commit(p).Admit)
	}
	for i, step := range []struct {
		after time.Duration
		p     *program.Program
		want  int
	}{{0, lax, 0}, {lenience - 1, lax, 0}, {0, strict, 0}, {lenience, strict, 0}, {0, lax, 0}, {lenience - 1, lax, 0},
		{1, lax, 1}} {
		if got := after(step.after, step.p); got != step.want {
			t.Fatalf("step %d: %d are admitted, want %d", i, got, step.want)
		}
	}
	if s.d.CountRefused() != 0 || s.commit(lax).Node.Cut {
		t.Error("the sets do not go")
	}
}

// Of an address that has no pod any more, or another one, nothing is refused.
func TestARefusalGoesWithItsPod(t *testing.T) {
	strict := letting([]string{friend}, pod("10.0.0.1", "web"))
	for name, next := range map[string]*program.Program{"gone": letting([]string{friend}),
		"another": letting([]string{friend}, pod("10.0.0.1", "next"))} {
		s := newScene(Options{}).settle(strict)
		s.c.Found = []cut.Cut{connection(stranger, "10.0.0.1")}
		s.commit(strict)
		s.w.Searching = false
		if out := s.commit(next); len(out.Admit) != 1 || out.Node.Cut {
			t.Errorf("%s: %d are admitted", name, len(out.Admit))
		}
	}
}

// What an earlier process refuses is taken over. What the kernel forgot is
// forgotten, if its protocol has a time; else it is written again.
func TestWhatTheKernelRefusesIsTakenOver(t *testing.T) {
	p := letting([]string{friend}, pod("10.0.0.1", "web"))
	refused := func(proto inet.Protocol, port uint16) program.Refused {
		return program.Refused{Protocol: proto, Src: at("10.0.0.1"), Dst: at(stranger), SrcPort: port, DstPort: 40000}
	}
	s := newScene(Options{}).wire(p)
	s.w.Recorded, s.c.Read = p.Pods, true
	s.c.Refused = []program.Refused{refused(inet.TCP, 1), refused(inet.UDP, 2)}
	if out := s.commit(p); s.d.CountRefused() != 2 || !out.Node.Cut || len(out.Again) > 0 {
		t.Fatalf("%d are refused, again %v", s.d.CountRefused(), out.Again)
	}
	s.c.Read, s.c.Refused = true, nil
	out := s.commit(p)
	if !slices.Equal(out.Again, []program.Refused{refused(inet.TCP, 1)}) || s.d.CountRefused() != 1 {
		t.Errorf("written again are %v, %d are refused", out.Again, s.d.CountRefused())
	}
	if got := slices.Collect(s.d.Refused()); !slices.Equal(got, out.Again) {
		t.Errorf("refused are %v", got)
	}
	s.d.Forget()
	if s.d.CountRefused() != 0 {
		t.Error("after the rules were away on purpose something is refused")
	}
}

// Without a connection table nothing is decided about connections, and that is a
// problem; so is a scan that failed.
func TestAConnectionTableThatCannotBeReadIsAProblem(t *testing.T) {
	p := letting([]string{friend}, pod("10.0.0.1", "web"))
	for keep, blocking := range map[bool]bool{false: true, true: false} {
		s := newScene(Options{KeepConnections: keep}).wire(p)
		s.c.Unreadable = errors.New("no such table")
		out := s.commit(p)
		if len(out.Problems) != 1 || out.Problems[0].Blocking != blocking || len(out.Scan) > 0 {
			t.Errorf("kept %t: %+v, scan %v", keep, out.Problems, touched(out.Scan))
		}
		s = newScene(Options{KeepConnections: keep}).settle(p)
		s.c.Failed = errors.New("no memory")
		if out := s.commit(p); len(out.Problems) != 1 || out.Problems[0].Blocking != blocking {
			t.Errorf("kept %t, after a scan that failed: %+v", keep, out.Problems)
		}
	}
}

// Where a bridge gets its first isolated pod, flows to groups on it are scanned by
// whoever isolated it.
func TestAClosedBridgeHasItsFlowsToGroupsScanned(t *testing.T) {
	p := letting(nil, openPod("10.0.0.1", "a"), openPod("10.0.0.2", "b"))
	isolated := letting(nil, pod("10.0.0.1", "a"), openPod("10.0.0.2", "b"))
	s := newScene(Options{})
	for _, pod := range p.Pods {
		s.w.Paths[pod.Addr] = inet.Path{Index: 3, Link: "cni0", Bridge: true, Port: "p" + pod.ID}
	}
	s.w.RememberedBridges = []string{"cni0"}
	s.looked(p).commit(p)
	s.commit(p)
	out := s.commit(isolated)
	if whole := out.Scan[cut.Payer{Tenant: "shop"}]; whole == nil || !whole.Whole {
		t.Errorf("scanned are %v", touched(out.Scan))
	}
	if got := texts(slices.Collect(maps.Keys(out.Learn.Groups.Closed))); !slices.Equal(got,
		[]string{"10.0.0.1", "10.0.0.2"}) {
		t.Errorf("closed for groups are %v", got)
	}
	if out := s.commit(isolated); len(out.Scan) > 0 {
		t.Errorf("once more: %v", touched(out.Scan))
	}
}
