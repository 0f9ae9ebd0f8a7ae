// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// sizes are the numbers of Services that are measured.
var sizes = [...]int{10, 1_000, 10_000, 30_000}

// loaded has n Services in a kernel.
func loaded(b *testing.B, n int) (*nft.Conn, *ruleset.Renderer, *program.Program, *nft.Table) {
	b.Helper()
	c, err := nft.Open(nftrun.Namespace(b).FD(), ruleset.Table(inet.IPv4))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() }) // the namespace goes anyway
	p, r := many(n), &ruleset.Renderer{}
	t := r.Render(p, ruleset.Settings{})
	if err := c.Commit(nft.Diff(nil, t)); err != nil {
		b.Fatal(err)
	}
	return c, r, p, t
}

// Changes that go there and back, from the program to the kernel.
func BenchmarkChange(b *testing.B) {
	for _, change := range []struct {
		name string
		of   func(p *program.Program) *program.Program
	}{
		{"backend", func(p *program.Program) *program.Program { return replaced(p, 1) }},
		{"scale", func(p *program.Program) *program.Program { return service(gone(p, 1), 1, 3, 0) }},
		{"service", func(p *program.Program) *program.Program { return gone(p, 1) }},
		{"sticky", func(p *program.Program) *program.Program { return replaced(p, special+1) }},
	} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", change.name, n), func(b *testing.B) {
				c, r, p, t := loaded(b, n)
				both := [2]*program.Program{change.of(p), p}
				for i := 0; b.Loop(); i++ {
					next := r.Render(both[i%2], ruleset.Settings{})
					if err := c.Commit(nft.Diff(t, next)); err != nil {
						b.Fatal(err)
					}
					t = next
				}
			})
		}
	}
}

// The whole table, to the kernel and back.
func BenchmarkWhole(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("load/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				loaded(b, n)
			}
		})
		b.Run(fmt.Sprintf("read/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			c, _, _, t := loaded(b, n)
			for b.Loop() {
				got, err := c.Read()
				if err != nil {
					b.Fatal(err)
				}
				if ops := nft.Diff(got, t); len(ops) > 0 {
					b.Fatalf("a difference: %v", ops)
				}
			}
		})
	}
}
