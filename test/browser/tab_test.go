// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/podwall/podwall/internal/kubectl"
)

// patience is how long what must happen may take on a busy machine.
const patience = 2 * time.Minute

// serve runs kubectl podwall ui for the time of the test, and returns the address that it prints.
func serve(t *testing.T, args ...string) string {
	t.Helper()
	address, _ := start(t, args...)
	return address
}

// start is serve for a page that may end before the test.
func start(t *testing.T, args ...string) (address string, stop func()) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var said strings.Builder
	ended := make(chan int, 1)
	go func() {
		ended <- kubectl.Run(ctx, "test", append([]string{"ui"}, args...), kubectl.Streams{In: strings.NewReader(""), Out: in, Err: &said})
		in.Close()
	}()
	stop = sync.OnceFunc(func() {
		end()
		if status := <-ended; status != 0 {
			t.Errorf("ui: exit status %d\n%s", status, said.String())
		}
	})
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return strings.TrimSpace(strings.TrimPrefix(line, "Open ")), stop
}

// action is something done in a tab.
type action = chromedp.Action[chromedp.Void]

// command is an action that sends a command of the DevTools protocol.
func command[P, R any](c cdp.Command[P, R], params P) action {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// tab is a tab of the browser.
type tab struct {
	t      *testing.T
	ctx    context.Context
	origin string

	mu       sync.Mutex
	problems []string // dialogs, exceptions, what the browser refuses
	asked    []string // addresses of all requests
}

// open opens an address in a new tab. The test fails if a script fails there, a rule of the page is
// broken, or anything but the page's own server is asked for.
func open(t *testing.T, address string, before ...action) *tab {
	t.Helper()
	origin, _, _ := strings.Cut(address, "#")
	p := &tab{t: t, origin: origin}
	var end context.CancelFunc
	p.ctx, end = chromedp.NewContext(browser, chromedp.WithListener(p.hear), chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	t.Cleanup(p.check)
	if err := chromedp.Do(p.ctx, command(log.Enable, cdp.Empty{}), command(network.Enable, network.EnableParams{})); err != nil {
		t.Fatal(err) // the tab lives as long as the context of its first action
	}
	p.do(append(before, chromedp.Navigate(address))...)
	return p
}

func (p *tab) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.asked = append(p.asked, e.Request.URL)
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, "exception: "+fmt.Sprintf("%+v", *e.ExceptionDetails))
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError {
			p.problems = append(p.problems, fmt.Sprintf("log: %s %s", e.Entry.Source, e.Entry.Text))
		}
	case *page.EventJavascriptDialogOpening:
		p.problems = append(p.problems, "dialog: "+e.Message)
	}
}

func (p *tab) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, text := range p.problems {
		p.t.Error(text)
	}
	for _, address := range p.asked {
		if !strings.HasPrefix(address, p.origin) || strings.Contains(address, "#") {
			p.t.Errorf("the page asks %s", address)
		}
	}
	if len(p.asked) < 5 {
		p.t.Errorf("only %d requests were seen", len(p.asked))
	}
}

// forgive forgets problems that are expected.
func (p *tab) forgive(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var left []string
	for _, text := range p.problems {
		if !strings.Contains(text, part) {
			left = append(left, text)
		}
	}
	p.problems = left
}

func (p *tab) do(actions ...action) {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, patience)
	defer end()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// eval returns the value of an expression.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, patience)
	defer end()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// await waits until an expression is true.
func (p *tab) await(expression string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !eval[bool](p, "!!("+expression+")"); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("not true: %s\n%s", expression, eval[string](p, "document.body.innerText"))
		}
	}
}

// awaitAnew is await while the page is loaded anew, when there is no page for a moment.
func (p *tab) awaitAnew(expression string) {
	p.t.Helper()
	ctx, end := context.WithTimeout(p.ctx, patience)
	defer end()
	for ; ; time.Sleep(30 * time.Millisecond) {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if is && err == nil {
			return
		}
		if ctx.Err() != nil {
			p.t.Fatalf("not true: %s: %v", expression, err)
		}
	}
}

// text returns the text of an element.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf("document.querySelector(%q)?.textContent ?? ''", selector))
}

// awaitText waits until an element has a text.
func (p *tab) awaitText(selector, part string) {
	p.t.Helper()
	p.await(fmt.Sprintf("(document.querySelector(%q)?.textContent ?? '').includes(%q)", selector, part))
}

// press presses keys, one after the other.
func (p *tab) press(keys ...string) {
	p.t.Helper()
	for _, k := range keys {
		p.do(chromedp.KeyEvent(k))
	}
}

// click clicks on an element with the mouse.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// clickEdge clicks on the middle of an edge.
func (p *tab) clickEdge(from, to string) {
	p.t.Helper()
	edge := fmt.Sprintf(".hit[data-from=%q][data-to=%q]", from, to)
	p.await(fmt.Sprintf("document.querySelector('%s')", edge))
	at := eval[[]float64](p, fmt.Sprintf(`(() => {
		const path = document.querySelector('%s');
		const matrix = path.getScreenCTM();
		for (let part = 0.35; part < 0.65; part += 0.02) { // where no other edge is above it
			const at = path.getPointAtLength(path.getTotalLength() * part).matrixTransform(matrix);
			if (document.elementFromPoint(at.x, at.y) === path) { return [at.x, at.y]; }
		}
		return [];
	})()`, edge))
	if len(at) != 2 {
		p.t.Fatalf("the edge from %s to %s is nowhere to be seen", from, to)
	}
	p.do(chromedp.MouseClickXY(at[0], at[1]))
}

// clickNode clicks on a node of the graph.
func (p *tab) clickNode(id string) {
	p.t.Helper()
	p.click(fmt.Sprintf(`.node[data-id="%s"] circle`, id))
}

// edges returns the pairs that are drawn, as "from > to".
func (p *tab) edges() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll(".hit")].map((e) => e.dataset.from + " > " + e.dataset.to)`)
}

// answered runs a command line and returns what it prints, without breaks of lines.
func answered(t *testing.T, args ...string) string {
	t.Helper()
	var out, said strings.Builder
	status := kubectl.Run(t.Context(), "test", args, kubectl.Streams{In: strings.NewReader(""), Out: &out, Err: &said})
	if status != 0 {
		t.Fatalf("%q: exit status %d\n%s", args, status, said.String())
	}
	return words(out.String())
}

func words(text string) string { return strings.Join(strings.Fields(text), " ") }

// example are the arguments for one of the five examples in the cluster of the demo.
func example(t *testing.T, name string) []string {
	t.Helper()
	for _, path := range []string{"../../examples/demo", "../../examples/seed/" + name} {
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"-f", "../../examples/demo", "-f", "../../examples/seed/" + name}
}
