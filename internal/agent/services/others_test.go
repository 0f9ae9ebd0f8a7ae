// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/leftover"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/foreign"
)

// inventory has kube-proxy's table in nftables mode, with a chain of that name.
func inventory(chain string) foreign.Inventory {
	key := leftover.Key{Family: "ip", Name: "kube-proxy"}
	return foreign.Inventory{Tables: []leftover.Table{{Key: key, Chains: []leftover.Chain{{Name: chain}}}}}
}

// others is a watch over an inventory that the test changes.
type others struct {
	Others
	now     foreign.Inventory
	failed  error
	removed int
}

func newOthers(takeOver bool) *others {
	o := &others{now: inventory("services")}
	o.Others = Others{TakeOver: takeOver, Log: slog.New(slog.DiscardHandler),
		Look: func(context.Context) (foreign.Inventory, error) { return o.now, o.failed },
		Remove: func(_ context.Context, p foreign.Plan) error {
			o.removed += len(p.Steps)
			o.now = foreign.Inventory{}
			return nil
		}}
	return o
}

// expect checks that the problem holds a text; none for "".
func expect(t *testing.T, when string, list []observe.Problem, text string) {
	t.Helper()
	switch {
	case text == "" && list != nil:
		t.Errorf("%s: the problems are %v, want none", when, list)
	case text != "" && (len(list) != 1 || !strings.Contains(list[0].Text, text)):
		t.Errorf("%s: the problems are %v, want %q", when, list, text)
	}
}

func TestTheStartWaitsUntilAnotherProxyIsGone(t *testing.T) {
	o, ctx := newOthers(false), t.Context()
	for range 5 {
		expect(t, "beside kube-proxy", o.Check(ctx, false), "kube-proxy in nftables mode has rules on this node")
	}
	o.now = foreign.Inventory{}
	expect(t, "when it is gone", o.Check(ctx, false), "")
	o.failed = errors.New("no answer")
	expect(t, "when nothing can be read", o.Check(ctx, false), "no answer")
}

func TestATakeOverRemovesWhatNobodyWrites(t *testing.T) {
	o, ctx := newOthers(true), t.Context()
	for range quietLooks - 1 {
		expect(t, "at first", o.Check(ctx, false), "still writes")
	}
	expect(t, "when nobody wrote", o.Check(ctx, false), "")
	if o.removed > 0 {
		t.Fatal("rules were removed before ours are in force")
	}
	expect(t, "after the first pass", o.Check(ctx, true), "")
	if o.removed == 0 {
		t.Error("nothing was removed")
	}
	o.now = inventory("services")
	expect(t, "when the rules come back", o.Check(ctx, true), "so it runs")
}

func TestNoTakeOverFromAProxyThatRuns(t *testing.T) {
	o, ctx := newOthers(true), t.Context()
	o.Check(ctx, false)
	o.now = inventory("other")
	expect(t, "when it writes", o.Check(ctx, false), "its rules changed just now")
	for range quietLooks - 2 {
		expect(t, "soon after", o.Check(ctx, false), "still writes")
	}
	expect(t, "when it no longer writes", o.Check(ctx, false), "")
	o.Pods = func() []foreign.Sign {
		return []foreign.Sign{{Proxy: foreign.KubeProxy, Text: "the API server lists its pod"}}
	}
	for range 5 {
		expect(t, "with its pod", o.Check(ctx, false), "the API server lists its pod")
	}
	if o.removed > 0 {
		t.Error("rules of a proxy that runs were removed")
	}
}

func TestAProxyThatComesLaterIsAProblem(t *testing.T) {
	o, ctx := newOthers(false), t.Context()
	o.now = foreign.Inventory{}
	expect(t, "alone", o.Check(ctx, false), "")
	expect(t, "alone, later", o.Check(ctx, true), "")
	o.now = inventory("services")
	expect(t, "beside a new one", o.Check(ctx, true), "two proxies serve")
}

// While Services are served the loop is told what is found, and the watch ends with the context also if the
// loop no longer listens.
func TestAProxyThatIsThereIsTold(t *testing.T) {
	o := newOthers(false)
	ctx, stop := context.WithCancel(t.Context())
	found, ended := make(chan []observe.Problem), make(chan struct{})
	go func() {
		defer close(ended)
		o.Watch(ctx, found)
	}()
	expect(t, "beside a new one", <-found, "two proxies serve")
	stop()
	<-ended
}
