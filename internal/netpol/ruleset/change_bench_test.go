// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The size that docs/adr/0005-flat-chains.md speaks of: a full node on which
// every pod has its own set of policies.
const (
	benchPods  = 80
	benchRules = 10 // in each direction
)

// BenchmarkChange measures what the kernel takes for one small change of a full
// table. It validates the jumps of the whole table again when an element with a
// jump is added, so the shape of the table counts and not only the change.
//
// The variant goto is the shape that was not chosen: an egress rule that
// matches goes on to the ingress chains by itself. BenchmarkChange/pods4 is the
// price of a transaction without jumps.
func BenchmarkChange(b *testing.B) {
	for _, shape := range []string{"return", "goto"} {
		full := wide()
		for _, change := range []struct {
			name string
			to   *program.Program
		}{
			{"pod-ingress4", with(full, func(p *program.Program) { p.Pods[0].Ingress = p.Pods[1].Ingress })},
			{"pod-egress4", with(full, func(p *program.Program) { p.Pods[0].Egress = p.Pods[1].Egress })},
			{"pods4", with(full, func(p *program.Program) {
				p.Sets[0] = &program.Set{Name: p.Sets[0].Name, Kind: inet.Addrs, Family: inet.IPv4,
					Elements: p.Sets[0].Elements.With(inet.Element{Addr: netip.MustParseAddr("10.99.0.1")})}
			})},
			{"pod", with(full, func(p *program.Program) { p.Pods = p.Pods[1:] })},
			{"chain", with(full, func(p *program.Program) {
				c := *p.Chains[0]
				c.Rules = c.Rules[1:]
				p.Chains[0] = &c
			})},
		} {
			b.Run(shape+"/"+change.name, func(b *testing.B) { benchChange(b, shape, full, change.to) })
		}
	}
}

// benchChange goes there and back b.N times.
func benchChange(b *testing.B, shape string, from, to *program.Program) {
	c, _ := openIn(b)
	here, there := shaped(shape, from), shaped(shape, to)
	start := time.Now()
	if err := c.Commit(nft.Diff(nil, here)); err != nil {
		b.Fatal(err)
	}
	load := time.Since(start)
	ways := [2][]nft.Op{nft.Diff(here, there), nft.Diff(there, here)}
	if len(ways[0]) == 0 || len(ways[1]) == 0 {
		b.Fatal("nothing changes")
	}
	took := make([]time.Duration, 0, b.N)
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if err := c.Commit(ways[i%2]); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(milliseconds(took[len(took)/2]), "ms-median")
	b.ReportMetric(milliseconds(took[len(took)*99/100]), "ms-p99")
	b.ReportMetric(milliseconds(load), "ms-load")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// with returns a changed copy.
func with(p *program.Program, change func(*program.Program)) *program.Program {
	q := &program.Program{Pods: slices.Clone(p.Pods), Chains: slices.Clone(p.Chains), Sets: slices.Clone(p.Sets)}
	change(q)
	return q
}

// shaped renders, and for the shape goto lets each egress rule go on by itself.
func shaped(shape string, p *program.Program) *nft.Table {
	t := Render(p, program.Node{})
	if shape == "return" {
		return t
	}
	egress := map[string]bool{}
	for _, c := range p.Chains {
		egress[c.Name] = c.Direction == program.Egress
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			s := c.Rules[i].Statements
			if last := len(s) - 1; egress[c.Name] && s[last] == nft.Statement(nft.Verdict{Kind: nft.Return}) {
				s[last] = nft.GoTo(chainToPod)
			}
		}
	}
	return t
}

// wide is a program in which no two pods share a chain.
func wide() *program.Program {
	p := &program.Program{}
	for i := range benchPods {
		peers := program.Set{Name: fmt.Sprintf("pods4-%03d", i), Kind: inet.Addrs, Family: inet.IPv4}
		for j := range 50 {
			peers.Elements = peers.Elements.With(inet.Element{Addr: netip.AddrFrom4([4]byte{10, 98, byte(i), byte(j)})})
		}
		p.Sets = append(p.Sets, &peers)
		p.Pods = append(p.Pods, program.Pod{
			Addr: netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 10)}), Name: fmt.Sprintf("shop/pod-%03d", i),
			Ingress: fmt.Sprintf("ingress4-%03d", i), Egress: fmt.Sprintf("egress4-%03d", i),
		})
		for _, d := range []program.Direction{program.Egress, program.Ingress} {
			c := &program.Chain{Name: fmt.Sprintf("%s4-%03d", d, i), Direction: d, Family: inet.IPv4}
			for r := range uint16(benchRules) {
				c.Rules = append(c.Rules, program.Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 8000 + r, Last: 8000 + r}, PeerSet: peers.Name})
			}
			p.Chains = append(p.Chains, c)
		}
	}
	slices.SortFunc(p.Chains, func(a, b *program.Chain) int { return cmp.Compare(a.Name, b.Name) })
	return p
}
