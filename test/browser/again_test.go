// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/podwall/podwall/internal/kubectl/page"
)

// What nodes enforce is said of the version that is shown, and of no other: not after a reload, and not
// when another tab reloads.
func TestEnforcementIsOfTheVersionShown(t *testing.T) {
	var shown, known, asked, listed atomic.Int64
	shown.Store(1)
	known.Store(1)
	answers := bigAnswers(3)
	about := answers["about"]
	answers["read"] = page.Answer(func(context.Context, url.Values) (any, error) {
		shown.Add(1)
		return about, nil
	})
	answers["policies"] = page.Answer(func(context.Context, url.Values) (any, error) {
		return object{"total": 1, "first": 0, "policies": list{object{"name": "shop/web", "isolates": list{"ingress"}, "pods": 1,
			"audit": false, "findings": list{fmt.Sprintf("list %d of version %d", listed.Add(1), shown.Load())},
			"version": strconv.FormatInt(shown.Load(), 10)}}}, nil
	})
	answers["status"] = page.Answer(func(context.Context, url.Values) (any, error) {
		return object{"text": fmt.Sprintf("answer %d", asked.Add(1)), "good": true,
			"at": "2026-11-30T09:58:10Z", "read": "2026-11-30T07:00:00Z", "now": "2026-11-30T10:00:00Z",
			"policies": object{"shop/web": fmt.Sprintf("enforced on %d of 3 nodes", known.Load())},
			"versions": object{"shop/web": strconv.FormatInt(known.Load(), 10)}}, nil
	})
	p := open(t, answering(t, answers))
	p.await(`document.querySelectorAll(".node").length === 3`)
	p.click("#tab-policies")
	p.awaitText("#policylist .state", "enforced on 1 of 3 nodes, in its version 1")
	p.awaitText("#nodes", "answer 1")
	p.awaitText("#asked", "The nodes were asked 1 minute ago, the policies were read 3 hours ago.")

	silent := func(version, answer int) {
		t.Helper()
		p.awaitText("#policylist .finding", fmt.Sprintf("of version %d", version))
		p.awaitText("#nodes", fmt.Sprintf("answer %d", answer))
		if text := p.text("#policylist .state"); text != "" {
			t.Errorf("version %d is %q, which is of version %d", version, text, known.Load())
		}
		p.awaitText("#policylist", fmt.Sprintf("not known of its version %d: ask the nodes again", version))
	}
	p.click("#reload")
	silent(2, 2)
	shown.Add(1) // by another tab
	p.click("#tab-help")
	p.click("#tab-policies")
	silent(3, 3)
	known.Store(3)
	p.click("#tab-help")
	p.click("#tab-policies")
	p.awaitText("#policylist .state", "enforced on 3 of 3 nodes")
}

// How old the figures are stays true while they are shown, by the clock of the program that has them.
func TestAgesGrow(t *testing.T) {
	answers := bigAnswers(3)
	about := answers["about"].(object)
	about["read"], about["now"] = "2001-01-01T00:00:00Z", "2001-01-01T00:01:58Z"
	p := open(t, answering(t, answers))
	p.awaitText("#source", "cluster big, read 2 minutes ago")
	p.click("#tab-help")
	p.awaitText("#facts", "2001-01-01T00:00:00Z")
}

// The button of a denied flow keeps the focus while other flows come before it and it is counted on.
func TestNewsLeaveTheFocus(t *testing.T) {
	var polls atomic.Int64
	flow := func(number int64, key string) object {
		return object{"number": number, "key": key, "time": fmt.Sprintf("time %d", number), "text": "flow " + key, "reason": "no rule",
			"verdict": "denied", "count": number, "source": "pod/shop/client", "destination": "pod/shop/web:80/tcp"}
	}
	answers := bigAnswers(3)
	answers["flows"] = page.Answer(func(context.Context, url.Values) (any, error) {
		n := polls.Add(1)
		news := list{flow(3*n, "a"), flow(3*n+1, "b"), flow(3*n+2, fmt.Sprintf("poll %d", n))}
		if n%2 == 0 {
			news = list{} // nothing new
		}
		return object{"last": n, "said": list{}, "flows": news}, nil
	})
	p := open(t, answering(t, answers))
	p.await(`document.querySelectorAll(".node").length === 3`)
	p.click("#tab-flows")
	p.awaitText("#flowlist", "flow a")
	eval[bool](p, `(() => {
		const b = [...document.querySelectorAll("#flowlist li")].find((li) => li.textContent.includes("flow a")).querySelector("button");
		b.kept = true;
		b.focus();
		return true;
	})()`)
	from := polls.Load()
	p.await(fmt.Sprintf(`document.querySelector("#flowlist").textContent.includes("poll %d")`, from+4+(from+1)%2))
	if !eval[bool](p, `document.activeElement.kept === true`) {
		t.Errorf("the focus is on %s", eval[string](p, `document.activeElement.outerHTML.slice(0, 100)`))
	}
	order := eval[[]int](p, `[...document.querySelectorAll("#flowlist .quiet")].map((e) => Number(/time (\d+)/.exec(e.textContent)[1]))`)
	for i := 1; i < len(order); i++ {
		if order[i] > order[i-1] {
			t.Errorf("the order is %v", order)
		}
	}
	p.press(kb.Enter)
	p.awaitText("#answer pre", "allowed")
	if n := polls.Load() - from; n > 1000 {
		t.Errorf("the page asked %d times", n)
	}
}

// The address of a new run at the same port works in the tab that is open.
func TestANewRunOpensInTheSameTab(t *testing.T) {
	first, stop := start(t, example(t, "1-same-namespace.yaml")...)
	p := open(t, first)
	p.await(`document.querySelectorAll(".node").length >= 5`)
	origin, _, _ := strings.Cut(first, "#")
	at, err := netip.ParseAddrPort(strings.Trim(strings.TrimPrefix(origin, "http:"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	second := serve(t, append(example(t, "2-deny-ingress.yaml"), "--port", strconv.Itoa(int(at.Port())))...)
	eval[bool](p, fmt.Sprintf(`(location.href = %q) !== ""`, second))
	p.awaitAnew(`document.getElementById("source").textContent.includes("2-deny-ingress.yaml")`)
	p.awaitAnew(`document.querySelectorAll(".node").length >= 5`)
	if now := eval[string](p, "location.href"); now != origin {
		t.Errorf("the address is %s", now)
	}
	if problem := p.text("#problem"); problem != "" {
		t.Error(problem)
	}
}

// Reload shows what the files have now.
func TestReloadReadsTheFilesAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pod := func(name string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: " + name + ", namespace: shop}, spec: {containers: [{name: c, image: x, " +
			"ports: [{containerPort: 80}]}]}}\n---\n"
	}
	pods := "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n" + pod("client") + pod("web")
	write(pods)
	p := open(t, serve(t, "-f", path))
	p.await(`document.querySelector('.node[data-id="namespace:shop"]')`)
	p.do(typed("#from", "shop/client"), typed("#to", "shop/web:80"))
	p.press(kb.Enter)
	p.awaitText("#answer pre", "allowed")
	write(pods + "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: none, namespace: shop}, spec: {podSelector: {}}}\n")
	p.click("#reload")
	p.await(`document.querySelector(".node.ingress") && !document.getElementById("reload").disabled`)
	p.click("#to")
	p.press(kb.Enter)
	p.awaitText("#answer pre", "denied")
	p.click("#tab-policies")
	p.awaitText("#policylist", "shop/none")
	p.forgive("status of 422")
}

// A double click opens a namespace, and another one closes it. A click leaves the nodes as they are:
// some browsers count no second click on another element.
func TestADoubleClickOpensANamespace(t *testing.T) {
	const space = `.node[data-id="namespace:nsa"]`
	p := open(t, serve(t, example(t, "1-same-namespace.yaml")...))
	p.await(`document.querySelectorAll(".node").length >= 5`)
	eval[bool](p, fmt.Sprintf(`document.querySelector('%s').kept = true`, space))
	p.clickNode("namespace:nsa")
	p.await(fmt.Sprintf(`document.querySelector('%s.source')`, space))
	if !eval[bool](p, fmt.Sprintf(`document.querySelector('%s').kept === true`, space)) {
		t.Error("a click replaces the node")
	}
	p.press(kb.Escape)
	p.do(chromedp.DoubleClick(chromedp.CSS(space + " circle")))
	p.await(`document.querySelectorAll(".node.workload").length === 3`)
	p.do(chromedp.DoubleClick(chromedp.CSS(`.node[data-id="workload:nsa/a1"] circle`)))
	p.await(fmt.Sprintf(`document.querySelector('%s')`, space))
}
