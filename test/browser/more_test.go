// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

func reloaded() action {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Reload()(ctx, t)
		return err
	})
}

// bigAnswers are those about a part of a large cluster, in which everything reaches everything.
func bigAnswers(nodes int) map[string]any {
	var all, edges list
	for i := range nodes {
		name := fmt.Sprintf("team-%02d", i)
		all = append(all, object{"id": "namespace:" + name, "name": name, "kind": "namespace", "namespace": name, "pods": 84,
			"workloads": 9, "ingress": 84 * (i % 2), "egress": 0})
		for j := range nodes {
			edges = append(edges, object{"s": i, "d": j, "v": []string{"allowed", "denied"}[i*j%2], "a": 1, "f": 1})
		}
	}
	answers := evilAnswers()
	answers["about"] = object{"source": "cluster big", "files": false, "read": "now", "pods": 5000, "leftOut": 0, "namespaces": 600,
		"policies": 500, "ports": list{"tcp:80"}, "notes": list{}}
	answers["graph"] = object{"port": "tcp:80", "nodes": all, "total": 600, "first": 0, "edges": edges}
	answers["explain"] = object{"title": "a to b", "allowed": true, "text": "a to b tcp:80: allowed"}
	return answers
}

// Sixty nodes, which is as many as are shown, and all edges between them: drawn when one is chosen.
func TestALargeGraphStaysUsable(t *testing.T) {
	p := open(t, answering(t, bigAnswers(60)))
	p.await(`document.querySelectorAll(".node").length === 60`)
	p.awaitText("#shown", "1 to 60 of 600 shown, 0 edges; there are many: choose a node to see its own")
	p.click(`input[value="all"]`)
	p.press("g", kb.Enter)
	p.awaitText("#shown", "119 edges")
	p.press(kb.ArrowRight, kb.Enter)
	p.awaitText("#answer pre", "allowed")
	if !eval[bool](p, `!document.getElementById("next").hidden && document.getElementById("previous").hidden`) {
		t.Error("there is no way to the other nodes")
	}
}

// Denied flows come while they are looked at, and each can be explained.
func TestDeniedFlowsAreShown(t *testing.T) {
	answers := bigAnswers(3)
	answers["flows"] = object{"last": 1, "said": list{"node n2 records no denied flows"}, "flows": list{object{"number": 1,
		"key": "k", "time": "2026-11-30T10:00:00Z", "text": "shop/client (10.0.0.1) to shop/web (10.0.0.2) 80/tcp on n1",
		"reason": "no ingress rule of shop/web allows it", "verdict": "denied", "count": 3, "source": "pod/shop/client",
		"destination": "pod/shop/web:80/tcp"}}}
	answers["status"] = object{"text": "2 of 3 nodes enforce all policies", "good": false, "policies": object{}}
	p := open(t, answering(t, answers))
	p.await(`document.querySelectorAll(".node").length === 3`)
	p.click("#tab-flows")
	p.awaitText("#flowlist", "denied, 3 packets")
	p.awaitText("#flowstate", "1 denied flows · node n2 records no denied flows")
	p.click("#flowlist button")
	p.awaitText("#answer pre", "a to b tcp:80: allowed")
	p.click("#tab-policies")
	p.awaitText("#nodes", "2 of 3 nodes enforce all policies")

	files := open(t, serve(t, example(t, "1-same-namespace.yaml")...))
	files.click("#tab-flows")
	files.awaitText("#flowstate", "files have no agents: start kubectl podwall ui without -f")
	files.forgive("status of 422")
}

// pictures is where the pictures of the documents are written, if it is given.
const pictures = "PODWALL_PICTURES"

// The pictures of docs/ui.md can be made again, and are small.
func TestPictures(t *testing.T) {
	dir := os.Getenv(pictures)
	if dir == "" {
		dir = t.TempDir()
	}
	address := serve(t, example(t, "3-from-namespace.yaml")...)
	for name, look := range map[string]string{"ui-light.png": "light", "ui-dark.png": "dark"} {
		p := open(t, address, chromedp.EmulateViewport(1000, 600), scheme(look))
		p.await(`document.querySelectorAll(".node").length >= 5`)
		p.clickNode("namespace:nsa")
		p.press("o")
		p.await(`document.querySelectorAll(".node.workload").length === 3`)
		p.clickNode("namespace:default")
		p.clickNode("workload:nsa/a1")
		p.awaitText("#answer pre", "denied")
		ctx, end := context.WithTimeout(p.ctx, patience)
		defer end()
		picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		picture = smaller(t, picture)
		if len(picture) < 10_000 || len(picture) > 80_000 {
			t.Errorf("%s has %d bytes", name, len(picture))
		}
		if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// smaller writes a picture with 256 colors: those that it has most of, half of them without the grays, which
// the edges of letters have hundreds of.
func smaller(t *testing.T, picture []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	count := map[color.Color]int{}
	area := from.Bounds()
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			count[from.At(x, y)]++
		}
	}
	colors := slices.Collect(maps.Keys(count))
	slices.SortFunc(colors, func(a, b color.Color) int { return cmp.Compare(count[b], count[a]) })
	grays, others := split(colors)
	others = others[:min(128, len(others))]
	to := image.NewPaletted(area, append(others, grays[:min(256-len(others), len(grays))]...))
	nearest := map[color.Color]uint8{}
	for c := range count {
		nearest[c] = uint8(to.Palette.Index(c))
	}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			to.SetColorIndex(x, y, nearest[from.At(x, y)])
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, to); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// split tells grays from other colors.
func split(colors []color.Color) (grays, others color.Palette) {
	const gray = 0x1400 // as far as the channels of a gray differ
	for _, c := range colors {
		r, g, b, _ := c.RGBA()
		if max(r, g, b)-min(r, g, b) <= gray {
			grays = append(grays, c)
		} else {
			others = append(others, c)
		}
	}
	return grays, others
}
