// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// typed replaces what is in an input.
func typed(selector, text string) action {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).select()", selector))(ctx, t)
		if err == nil && text != "" {
			_, err = cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		}
		return err
	})
}

func scheme(name string) action {
	return command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}

// The page is dark or light as its user prefers, and can be read in both.
func TestDarkAndLight(t *testing.T) {
	address := serve(t, example(t, "2-deny-ingress.yaml")...)
	backs := map[string]bool{}
	for _, name := range []string{"light", "dark"} {
		p := open(t, address, scheme(name))
		p.await(`document.querySelectorAll(".node").length >= 5`)
		p.clickNode("namespace:default")
		p.clickNode("namespace:nsa")
		p.awaitText("#answer .verdict", "denied")
		p.click(`input[value="all"]`)
		backs[eval[string](p, `getComputedStyle(document.body).backgroundColor`)] = true
		for selector, property := range map[string]string{"body": "color", "#source": "color", "#answer .verdict": "color",
			"#answer pre": "color", "#peers .v-allowed": "color", "#peers .v-denied": "color", ".node text": "fill",
			".edge.allowed": "stroke", ".edge.denied": "stroke", ".edge.allowed:not(.near)": "stroke", ".node circle": "stroke",
			"#tab-explain": "color", "button": "color", "input": "color", "#match": "border-top-color"} {
			want := 4.5
			if property != "color" && property != "fill" {
				want = 3 // of what is no text
			}
			if got := contrast(p, selector, property); got < want {
				t.Errorf("%s: %s of %s has the contrast %.1f, want %.1f", name, property, selector, got, want)
			}
		}
	}
	if len(backs) != 2 {
		t.Errorf("the backgrounds are %v", backs)
	}
}

// contrast is the contrast of a color with what is behind it, as WCAG 2 counts it; what is behind is seen
// through it as far as it, or an element around it, is not opaque.
func contrast(p *tab, selector, property string) float64 {
	p.t.Helper()
	colors := eval[[][]float64](p, fmt.Sprintf(`(() => {
		const numbers = (c) => (c.match(/[\d.]+/g) ?? []).map(Number);
		const e = document.querySelector(%q);
		let back = e;
		const seen = (b) => { const n = numbers(getComputedStyle(b).backgroundColor); return n.length === 3 || n[3] > 0; };
		if (e.matches("input")) { back = back.parentElement; } // its border is seen against what is around it
		while (back.parentElement && !seen(back)) { back = back.parentElement; }
		const color = numbers(getComputedStyle(e)[%q]), behind = numbers(getComputedStyle(back).backgroundColor);
		let part = color[3] ?? 1;
		for (let i = e; i && i !== back; i = i.parentElement) { part *= Number(getComputedStyle(i).opacity); }
		return [color.map((c, i) => c * part + behind[i] * (1 - part)), behind];
	})()`, selector, property))
	light := func(c []float64) float64 {
		sum := 0.0
		for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
			v := c[i] / 255
			if v <= 0.03928 {
				v /= 12.92
			} else {
				v = math.Pow((v+0.055)/1.055, 2.4)
			}
			sum += weight * v
		}
		return sum
	}
	a, b := light(colors[0]), light(colors[1])
	return (math.Max(a, b) + 0.05) / (math.Min(a, b) + 0.05)
}
