// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/kubectl/page"
	"github.com/podwall/podwall/test/cluster"
)

// pageOf is kubectl podwall ui as an operator runs it on the cluster, and who asks it.
type pageOf struct {
	t           *testing.T
	client      *http.Client
	base, token string
}

// openPage starts kubectl podwall ui next to the control plane for the time of the test, and reads the address
// that it prints.
func openPage(t *testing.T, c *cluster.Cluster) (p *pageOf, end func()) {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(root, "bin", "kubectl-podwall"))
	check(t, err)
	cmd, start := c.Command(t.Context(), program, "ui")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("kubectl podwall ui: %v: %v: %s", err, cmd.Wait(), &said)
	}
	base, token, found := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "Open ")), "/#")
	if !found {
		t.Fatalf("kubectl podwall ui prints %q", line)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: c.Fabric().Dial}}
	return &pageOf{t: t, client: client, base: base, token: token}, func() {
		t.Helper()
		client.CloseIdleConnections()
		check(t, cmd.Process.Signal(os.Interrupt))
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("kubectl podwall ui, after Ctrl-C: %v: %s", err, &said)
		}
	}
}

// ask reads the answer to a question of the page.
func (p *pageOf) ask(name string, query url.Values, answer any) error {
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.base+"/api/"+name+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	r.Header.Set(page.TokenHeader, p.token)
	got, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return err
	}
	if got.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %s", name, got.StatusCode, text)
	}
	return json.Unmarshal(text, answer)
}

// liveFlows is what the page is told about denied flows.
type liveFlows struct {
	Last  int
	Flows []liveFlow
	Said  []string
}

type liveFlow struct{ Text, Reason, Source, Destination string }

// awaitFlow asks for denied flows after a number until one has this text, and returns it with the newest number.
func (p *pageOf) awaitFlow(last int, text string) (found liveFlow, newest int) {
	p.t.Helper()
	check(p.t, cluster.Await(p.t.Context(), "the denied flow "+text, 2*time.Minute, func(context.Context) error {
		var v liveFlows
		if err := p.ask("flows", url.Values{"after": {fmt.Sprint(last)}}, &v); err != nil {
			return err
		}
		last = v.Last
		for _, f := range v.Flows {
			if strings.Contains(f.Text, text) {
				found = f
				return nil
			}
		}
		return fmt.Errorf("there are only %+v", v)
	}))
	return found, last
}

// showsPage asks what the page shows of the cluster: what its nodes enforce, and a flow that is denied while it
// is looked at, with its reason.
func showsPage(t *testing.T, c *cluster.Cluster, pods map[string]*cluster.Pod) {
	t.Helper()
	p, end := openPage(t, c)
	defer end()
	nodes := len(c.Nodes())
	var status struct {
		Text     string
		Good     bool
		Policies map[string]string
	}
	check(t, cluster.Await(t.Context(), "the status on the page", 2*time.Minute, func(context.Context) error {
		if err := p.ask("status", nil, &status); err != nil || status.Good {
			return err
		}
		return errors.New(status.Text)
	}))
	if got, want := status.Policies["shop/web"], fmt.Sprintf("enforced on %[1]d of %[1]d nodes", nodes); got != want {
		t.Errorf("shop/web on the page: %q, want %q", got, want)
	}
	for _, n := range c.Nodes() {
		if !strings.Contains(status.Text, n.Name) {
			t.Errorf("the page does not name %s:\n%s", n.Name, status.Text)
		}
	}
	_, last := p.awaitFlow(0, "8080/tcp on") // of a minute ago: the agents are followed from here on
	const closed = port + 1
	reached, err := c.Connects(t.Context(), pods["foe"], netip.AddrPortFrom(pods["web"].IPs[0], closed), time.Second)
	check(t, err)
	if reached {
		t.Fatal("a pod connects that the policy does not allow")
	}
	f, _ := p.awaitFlow(last, fmt.Sprintf("%d/tcp on %s", closed, c.Nodes()[0].Name))
	want := liveFlow{Source: "pod/shop/foe", Destination: fmt.Sprintf("pod/shop/web:%d/tcp", closed)}
	if f.Source != want.Source || f.Destination != want.Destination ||
		!strings.Contains(f.Reason, "no ingress rule of shop/web allows it") {
		t.Errorf("the flow on the page: %+v, want %+v", f, want)
	}
	var why struct {
		Allowed bool
		Text    string
	}
	check(t, p.ask("explain", url.Values{"src": {f.Source}, "dst": {f.Destination}}, &why))
	if why.Allowed || !strings.Contains(why.Text, "needs app=friend, has app=foe") {
		t.Errorf("the page explains it with %+v", why)
	}
	p.isDrawn(c, "shop to shop: some", "namespace shop, 3 workloads, 3 pods; isolated: ingress 1, egress none")
}

// isDrawn opens the page in a browser next to the control plane, and wants parts of what it shows.
func (p *pageOf) isDrawn(c *cluster.Cluster, want ...string) {
	p.t.Helper()
	dir, err := os.MkdirTemp("", "podwall-browser-")
	check(p.t, err)
	// Processes of the browser end a moment after it, and write until then.
	defer func() {
		check(p.t, cluster.Await(p.t.Context(), "no file of the browser", time.Minute,
			func(context.Context) error { return os.RemoveAll(dir) }))
	}()
	ctx, end := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer end()
	cmd, start := c.Command(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+dir,
		"--virtual-time-budget=60000", "--dump-dom", p.base+"/#"+p.token)
	cmd.Env = append(cmd.Env, "HOME="+dir, "TMPDIR="+dir)
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	check(p.t, start())
	if err := cmd.Wait(); err != nil {
		p.t.Fatalf("chromium: %v: %s", err, &said)
	}
	wantSaid(p.t, out.String(), want...)
}
