// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/podwall/podwall/internal/kubectl/page"
	"github.com/podwall/podwall/internal/web"
)

// evil is a text that would run, load, or turn something if it became anything but a text.
const evil = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=2><svg onload=window.hacked=3>" +
	"javascript:window.hacked=4 \x1b[31m\u202e\u0000\u2028</pre></title>"

// The kinds of values in answers.
type (
	object = map[string]any
	list   = []any
)

// answering serves the page with these answers: values, errors or a page.Answer.
func answering(t *testing.T, answers map[string]any) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, token := listener.Addr().(*net.TCPAddr).AddrPort(), page.NewToken()
	given := map[string]page.Answer{}
	for name, value := range answers {
		if answer, ok := value.(page.Answer); ok {
			given[name] = answer
			continue
		}
		given[name] = func(ctx context.Context, q url.Values) (any, error) {
			if name == "flows" && q.Get("after") != "0" {
				<-ctx.Done() // there is no news
			}
			if err, ok := value.(error); ok {
				return nil, err
			}
			return value, nil
		}
	}
	handler, err := page.New(page.Options{Address: at, Token: token, Answers: given, Streams: []string{"flows"}})
	if err != nil {
		t.Fatal(err)
	}
	server := web.New(handler, nil)
	server.BaseContext = func(net.Listener) context.Context { return t.Context() }
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return page.URL(at, token)
}

func evilAnswers() map[string]any {
	node := func(i int, kind string) object {
		name := fmt.Sprintf("%d%s", i, evil)
		return object{"id": kind + ":" + name, "name": name, "kind": kind, "namespace": evil, "pods": 2, "workloads": 2, "ingress": 1,
			"egress": 1}
	}
	edge := func(s, d int, verdict string) object { return object{"s": s, "d": d, "v": verdict, "a": 1, "f": 2} }
	text := object{"title": evil, "allowed": false, "text": evil + "\n" + evil}
	return map[string]any{
		"about": object{"source": evil, "files": false, "read": evil, "pods": 1, "leftOut": 1, "namespaces": 1, "policies": 1,
			"ports": list{"tcp:80", evil}, "notes": list{evil, evil}},
		"graph": object{"port": evil, "nodes": list{node(0, "namespace"), node(1, "workload"), node(2, "host")}, "total": 3, "first": 0,
			"edges": list{edge(0, 1, "allowed"), edge(1, 2, "denied"), edge(2, 0, evil), edge(1, 1, "some")}},
		"pairs": object{"total": 2, "pairs": list{object{"source": evil, "destination": evil, "verdict": evil, "allowed": 1, "flows": 2},
			object{"source": evil, "destination": evil, "verdict": "some", "allowed": 1, "flows": 2}}},
		"explain": text, "end": text,
		"search": object{"more": true, "found": list{object{"kind": evil, "name": evil, "namespace": evil, "id": evil}}},
		"policies": object{"total": 1, "first": 0, "policies": list{object{"name": evil, "isolates": list{evil}, "pods": 1, "audit": true,
			"findings": list{evil}, "version": evil}}},
		"status": object{"text": evil, "good": false, "policies": object{evil: evil}},
		"flows": object{"last": 1, "said": list{evil}, "flows": list{object{"number": 1, "key": evil, "time": evil, "text": evil,
			"reason": evil, "verdict": evil, "count": 7, "source": evil, "destination": evil}}},
	}
}

// Whatever is in a name, a label, a reason or a record stays a text.
func TestHostileNamesStayTexts(t *testing.T) {
	p := open(t, answering(t, evilAnswers()))
	p.await(`document.querySelectorAll(".node").length === 3`)
	p.awaitText("#source", "<script>")
	p.click(`input[value="all"]`)
	p.press("g", kb.Enter)
	p.awaitText("#chosen", "<script>")
	p.press(kb.ArrowRight, kb.Enter)
	p.awaitText("#answer pre", "<img src=x")
	p.awaitText("#answer details", "<img src=x")
	p.await(`document.querySelectorAll(".node.source, .node.destination").length === 2`)
	p.press("/", "a")
	p.awaitText("#found", "<svg onload")
	p.press(kb.Enter) // to what is not there
	p.awaitText("#problem", "<script>")
	p.click("#tab-flows")
	p.awaitText("#flowlist", "<img src=x")
	p.click("#flowlist button")
	p.awaitText("#answer h2", "<script>")
	p.click("#tab-policies")
	p.awaitText("#policylist .finding", "<img src=x")
	p.awaitText("#policylist .state", "<img src=x")
	p.awaitText("#nodes", "<img src=x")
	p.click("#tab-help")
	p.awaitText("#notes", "<img src=x")
	p.harmless()
}

// harmless fails the test if a text became anything else.
func (p *tab) harmless() {
	p.t.Helper()
	if eval[bool](p, `"hacked" in window`) {
		p.t.Error("a script of a name ran")
	}
	if n := eval[int](p, `document.querySelectorAll("img, iframe, object, embed, base, form[action], a:not(.skip), style, `+
		`[onload], [onerror], [style], script:not([src]), body svg svg, link:not([href='page.css']):not([href='icon.svg'])").length`); n != 0 {
		p.t.Errorf("%d elements that are not of the page", n)
	}
	found := eval[[]string](p, `(() => {
		const bad = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2028]/u;
		const list = [];
		for (const e of document.querySelectorAll("*")) {
			for (const a of e.attributes) { if (bad.test(a.value)) { list.push(e.tagName + " " + a.name); } }
		}
		if (bad.test(document.body.textContent)) { list.push("text"); }
		return list;
	})()`)
	if len(found) > 0 {
		p.t.Errorf("characters that do not print are in %q", found)
	}
}

// So do errors of the server.
func TestHostileProblemsStayTexts(t *testing.T) {
	answers := evilAnswers()
	for _, name := range []string{"explain", "end", "pairs", "policies", "status", "flows"} {
		answers[name] = fmt.Errorf("%s", evil)
	}
	p := open(t, answering(t, answers))
	p.await(`document.querySelectorAll(".node").length === 3`)
	p.press("g", kb.Enter, kb.Enter)
	p.awaitText("#answer", "<img src=x")
	for _, name := range []string{"flows", "policies"} {
		p.click("#tab-" + name)
		p.awaitText("#"+name, "<img src=x")
	}
	p.harmless()
	p.forgive("status of 422")
}

// Files may have what no API server accepts.
func TestHostileFilesAreHarmless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "<img src=x onerror=window.hacked=5>.yaml")
	quoted := fmt.Sprintf("%q", "<img src=x onerror=window.hacked=6>")
	text := "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {" + quoted + ": " + quoted + "}, annotations: {a: " + quoted +
		"}}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: " + quoted + "}, annotations: {a: " +
		quoted + "}}, spec: {nodeName: n1, containers: [{name: c, image: x, ports: [{name: " + quoted + ", containerPort: 80}]}]}}\n---\n" +
		"{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: shop}, spec: {containers: [{name: c, image: x}]}}\n---\n" +
		"{apiVersion: v1, kind: Pod, metadata: {name: " + quoted + ", namespace: shop}, spec: {containers: [{name: c, image: x}]}}\n---\n" +
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: " + quoted + ", namespace: shop}, " +
		"spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: " + quoted + "}}}]}]}}\n---\n" +
		"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, " +
		"spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: other}}}]}]}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, serve(t, "-f", path))
	p.await(`document.querySelectorAll(".node").length >= 1`)
	p.awaitText("#source", "<img src=x")
	p.press("g", "o")
	p.await(`document.querySelectorAll(".node.workload").length >= 2`)
	p.press(kb.Enter, kb.ArrowRight, kb.Enter)
	p.awaitText("#answer pre", ": denied")
	p.click("#tab-policies")
	p.awaitText("#policylist", "shop/web")
	p.click("#tab-help")
	p.harmless()
}

// Without the token there is nothing to see. It is not left in the address.
func TestTheTokenIsNeededAndNotShown(t *testing.T) {
	address := serve(t, example(t, "1-same-namespace.yaml")...)
	origin, token, _ := strings.Cut(address, "#")
	p := open(t, address)
	p.await(`document.querySelectorAll(".node").length >= 5`)
	if at := eval[string](p, `location.href`); at != origin {
		t.Errorf("the address is %s", at)
	}
	if strings.Contains(eval[string](p, `document.documentElement.outerHTML + document.cookie + JSON.stringify(localStorage)`), token) {
		t.Error("the token is in the page")
	}
	p.do(reloaded())
	p.await(`document.querySelectorAll(".node").length >= 5`)

	other := open(t, origin+"#"+strings.Repeat("x", len(token)))
	other.awaitText("#problem", "wrong token: open the address that kubectl podwall ui printed")
	if eval[int](other, `document.querySelectorAll(".node").length`) != 0 {
		t.Error("a graph without the token")
	}
	other.forgive("status of 401")
}
