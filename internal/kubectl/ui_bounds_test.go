// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// ending is a context that ends when it has been asked so often.
type ending struct {
	context.Context
	after int
}

func (e *ending) Err() error {
	if e.after--; e.after < 0 {
		return context.Canceled
	}
	return nil
}

// differing has two StatefulSets of n pods, shop/one and shop/two, or with own the pods alone.
func differing(n int, own bool) *uiScene {
	snap := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}}
	workload := map[cluster.Key]string{}
	for i := range 2 * n {
		set := []string{"one", "two"}[i%2]
		p := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: fmt.Sprintf("%s-%d", set, i/2)}, Node: "node",
			Labels: cluster.NewLabels(map[string]string{"app": set, "pod": fmt.Sprint(i)}),
			IPs:    []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)})}}
		if snap.Pods = append(snap.Pods, p); !own {
			workload[p.Key] = set
		}
	}
	sc := newScene(snap, nil)
	sc.workload, sc.namespace = workload, "shop"
	return newUIScene(sc, time.Now())
}

// What a user writes is bounded as what he clicks on is: pairs of pods that all differ are not explained.
func TestAWrittenQuestionIsBounded(t *testing.T) {
	sc := differing(300, false)
	for _, q := range []url.Values{{"src": {"one"}, "dst": {"two:80"}}, {"src": {"one"}, "dst": {"two"}, "port": {"tcp:80"}}} {
		if _, err := sc.explainOf(t.Context(), q); err == nil || !strings.Contains(err.Error(), "name a pod at one end") {
			t.Errorf("%v: %v", q, err)
		}
	}
	v, err := sc.explainOf(t.Context(), url.Values{"src": {"one-7"}, "dst": {"two:80"}})
	if err != nil || !strings.Contains(v.(explainValue).Text, "and 280 more") {
		t.Errorf("%+v %v", v, err)
	}
}

// A question ends while it is answered when whoever asks it has gone.
func TestALongExplanationCanBeCancelled(t *testing.T) {
	sc := differing(300, false)
	for _, after := range []int{5, 300 + 5} { // among the paths, among the answers
		ctx := &ending{t.Context(), after}
		_, err := sc.explainOf(ctx, url.Values{"src": {"one-7"}, "dst": {"two:80"}})
		if !errors.Is(err, context.Canceled) || ctx.after < -2 {
			t.Errorf("after %d: %v, and it went on until %d", after, err, ctx.after)
		}
		ctx = &ending{t.Context(), after}
		if _, err := sc.ask(ctx, "one-7", "two:80"); !errors.Is(err, context.Canceled) || ctx.after < -2 {
			t.Errorf("ask, after %d: %v, and it went on until %d", after, err, ctx.after)
		}
	}
}

// Pairs that are not shown are counted and not kept.
func TestManyPairsTakeLittleMemory(t *testing.T) {
	sc := differing(1000, true)
	q := url.Values{"src": {"namespace:shop"}, "dst": {"namespace:shop"}, "port": {"tcp:80"}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v, err := sc.pairsOf(t.Context(), q)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), fmt.Sprintf(`"total":%d`, 2000*1999)) || strings.Count(string(text), `"source"`) != maxPairs {
		t.Errorf("%d bytes: %.300s", len(text), text)
	}
	if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 50 {
		t.Errorf("%d MiB were allocated", mib)
	}
}
