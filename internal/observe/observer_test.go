// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

func newObserver(period time.Duration) *Observer {
	return New(prometheus.NewRegistry(), Info{Node: "node-1", Version: "v0", Source: "manifests", Period: period})
}

// enforcing returns an observer of an agent that enforces revision 7.
func enforcing() *Observer {
	o := newObserver(time.Second)
	o.SetMissing(nil)
	o.Record(goodPass())
	return o
}

func goodPass() Pass {
	return Pass{Revision: 7, SourceID: "sha256:aa", Full: true, Elapsed: 20 * time.Millisecond,
		Pods: 5, IsolatedPods: 3, Policies: 2, Chains: 6, Sets: 4, Rules: 9, Elements: 40, Repairs: 1}
}

// ask sends one request and returns status code and body.
func ask(t *testing.T, o *Observer, url string) (int, string) {
	t.Helper()
	mux := o.statusHandler()
	o.serveMetrics(mux, "/metrics")
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", url, nil))
	return w.Code, w.Body.String()
}

func TestHealthSaysThatTheLoopTurnsAndNothingElse(t *testing.T) {
	tests := []struct {
		name   string
		period time.Duration
		silent time.Duration
		before func(*Observer)
		want   int
	}{
		{"before the first sync", time.Second, 0, func(*Observer) {}, 200},
		{"before the first beat, a minute after the start", time.Second, time.Minute, func(*Observer) {}, 200},
		{"no beat for more than a minute", time.Second, 61 * time.Second, func(*Observer) {}, 500},
		{"a long period allows a long silence", 5 * time.Minute, 10 * time.Minute, func(*Observer) {}, 200},
		{"but not for ever", 5 * time.Minute, 10*time.Minute + time.Second, func(*Observer) {}, 500},
		{"failing passes are no reason to be killed", time.Second, 0, func(o *Observer) { o.Record(Pass{Err: errors.New("no")}) }, 200},
		{"nor is a blocking problem", time.Second, 0, func(o *Observer) { o.SetProblem(Problem{Subject: "x", Blocking: true}) }, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newObserver(tt.period)
				tt.before(o)
				time.Sleep(tt.silent)
				code, body := ask(t, o, "/healthz")
				if code != tt.want || (code == 200) != (body == "OK") {
					t.Errorf("healthz = %d %q, want %d", code, body, tt.want)
				}
				o.Beat()
				if code, body := ask(t, o, "/healthz"); code != 200 || body != "OK" {
					t.Errorf("after a beat healthz = %d %q, want 200 OK", code, body)
				}
			})
		})
	}
}

func TestReadySaysWhatStandsInTheWay(t *testing.T) {
	blocking := Problem{Subject: "bridge br0", Text: "packets bypass the hooks", Blocking: true}
	tests := []struct {
		name string
		do   func(*Observer)
		want string // empty: ready
	}{
		{"at the start", func(*Observer) {}, "waiting for the first complete list of namespaces, pods, networkpolicies"},
		{"some kinds missing", func(o *Observer) { o.SetMissing([]cluster.Kind{cluster.Pods}) }, "complete list of pods"},
		{"synced but not applied", func(o *Observer) { o.SetMissing(nil) }, "nothing has been applied"},
		{"synced and applied", func(o *Observer) { o.SetMissing(nil); o.Record(goodPass()) }, ""},
		{"the first pass failed", func(o *Observer) { o.SetMissing(nil); o.Record(Pass{Err: errors.New("no memory")}) }, "the last pass failed: no memory"},
		{"a later pass failed", func(o *Observer) {
			o.SetMissing(nil)
			o.Record(goodPass())
			o.Record(Pass{Err: errors.New("no memory")})
		}, "the last pass failed: no memory"},
		{"the failure was repaired", func(o *Observer) {
			o.SetMissing(nil)
			o.Record(Pass{Err: errors.New("no memory")})
			o.Record(goodPass())
		}, ""},
		{"a blocking problem", func(o *Observer) { o.SetMissing(nil); o.Record(goodPass()); o.SetProblem(blocking) }, "bridge br0: packets bypass the hooks"},
		{"the problem was cured", func(o *Observer) {
			o.SetMissing(nil)
			o.Record(goodPass())
			o.SetProblem(blocking)
			o.ClearProblem("bridge br0")
		}, ""},
		{"a problem that does not block", func(o *Observer) {
			o.SetMissing(nil)
			o.Record(goodPass())
			o.SetProblem(Problem{Subject: "x", Text: "odd"})
		}, ""},
		{"the loop hangs", func(o *Observer) { o.SetMissing(nil); o.Record(goodPass()); time.Sleep(2 * time.Minute) }, "the loop has not turned for 2m0s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newObserver(time.Second)
				tt.do(o)
				code, body := ask(t, o, "/readyz")
				wantCode := 503
				if tt.want == "" {
					wantCode = 200
				}
				if code != wantCode || !strings.Contains(body, tt.want) {
					t.Errorf("readyz = %d %q, want %d with %q", code, body, wantCode, tt.want)
				}
			})
		})
	}
}

func TestAFailedPassKeepsWhatTheKernelHolds(t *testing.T) {
	o := enforcing()
	o.Record(Pass{Revision: 8, SourceID: "sha256:bb", Elapsed: time.Second, Err: errors.New("no memory")})
	s := o.Status()
	if s.Revision != 7 || s.SeenRevision != 8 || s.SourceID != "sha256:aa" || s.Elements != 40 || s.DriftRepairs != 1 {
		t.Errorf("status = %+v, want the counts of revision 7 and seen revision 8", s)
	}
	if s.LastApply.Error != "no memory" || s.LastApply.Kind != "delta" || s.LastApply.Seconds != 1 {
		t.Errorf("last apply = %+v, want the failed one", s.LastApply)
	}
}

func TestAProblemKeepsTheTimeAtWhichItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserver(time.Second)
		began := time.Now()
		o.SetProblem(Problem{Subject: "b", Text: "first"})
		time.Sleep(time.Hour)
		o.SetProblem(Problem{Subject: "b", Text: "second"})
		o.SetProblem(Problem{Subject: "a", Text: "other"})
		got := o.Status().Problems
		want := []Problem{
			{Subject: "a", Text: "other", Since: began.Add(time.Hour)},
			{Subject: "b", Text: "second", Since: began},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	})
}

func TestDropsAreCountedOnAcrossARebuiltTable(t *testing.T) {
	o := newObserver(time.Second)
	for _, d := range [][2]uint64{{10, 1}, {15, 1}, {2, 0}, {2, 4}} {
		o.SetDrops(Drops{DropPolicyIngress: d[0], DropSource: d[1]})
	}
	if got := o.Status().Drops; got != 22 {
		t.Errorf("drops = %d, want 15+2 by policies and 1+4 forged", got)
	}
	if _, body := ask(t, o, "/metrics"); !strings.Contains(body, `podwall_dropped_packets_total{reason="policy-ingress"} 17`) {
		t.Errorf("metrics do not count 17 drops by policies:\n%s", body)
	}
}

func TestStatusIsJSONForProgramsAndLinesForPeople(t *testing.T) {
	o := enforcing()
	o.SetDatapath(Datapath{Datapath: "nat", Guard: "off", GuardReason: "kube-proxy has one", Families: []string{"ipv4", "ipv6"}})
	code, body := ask(t, o, "/statusz")
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
		t.Fatalf("statusz = %d, %v:\n%s", code, err, body)
	}
	for key, want := range map[string]any{
		"schema": "podwall.status/v1", "node": "node-1", "source": "manifests", "sourceID": "sha256:aa",
		"revision": 7.0, "seenRevision": 7.0, "ready": true, "datapath": "nat", "guard": "off",
		"isolatedPods": 3.0, "drops": 0.0,
	} {
		if got[key] != want {
			t.Errorf("%s = %v, want %v", key, got[key], want)
		}
	}
	for _, list := range []string{"problems", "diagnostics"} {
		if v, ok := got[list].([]any); !ok || len(v) != 0 {
			t.Errorf("%s = %v, want an empty list, not null", list, got[list])
		}
	}
	if code, _ := ask(t, o, "/statusz?format=xml"); code != 400 {
		t.Errorf("an unknown format gives %d, want 400", code)
	}
}

func TestTheTextFormReadsFromTheTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newObserver(time.Second)
		o.SetDatapath(Datapath{Datapath: "nat", Guard: "on", GuardReason: "nobody else has one", Families: []string{"ipv4"}})
		p := goodPass()
		p.Diagnostics = []cluster.Diagnostic{{Severity: cluster.Error, Kind: "NetworkPolicy",
			Object: cluster.Key{Namespace: "shop", Name: "db"}, Field: "spec", Message: "bad", Cure: "fix it"}}
		o.Record(p)
		o.SetMissing(nil)
		o.SetProblem(Problem{Subject: "bridge br0", Text: "bypasses", Cure: "load br_netfilter", Blocking: true})
		o.Record(Pass{Revision: 9, Err: errors.New("no memory"), Diagnostics: p.Diagnostics})
		_, got := ask(t, o, "/statusz?format=text")
		want := `node        node-1
ready       no
            - the last pass failed: no memory
            - bridge br0: bypasses
revision    7 enforced, 9 seen
source      manifests sha256:aa
datapath    nat
guard       on: nobody else has one
families    ipv4
pods here   5, 3 of them isolated
policies    2
kernel      6 chains, 9 rules, 4 sets, 40 elements
last apply  TIME, delta, took 0s, failed: no memory
repairs     1
drops       0 packets
cut         0 connections, 0 refused a revival
tracked     not known
version     v0, started TIME

problems of the node
  bridge br0: bypasses; load br_netfilter (not enforced meanwhile)

findings about objects
  error: NetworkPolicy shop/db: spec: bad; fix it
`
		got = strings.ReplaceAll(got, time.Now().Format(time.RFC3339), "TIME")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("text (-want +got):\n%s", diff)
		}
	})
}

func TestFeedsAreOnTheStatusPage(t *testing.T) {
	o := enforcing()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o.SetFeeds([]feed.Feed{{Kind: "pods", Connected: true, Since: at, Heard: at}, {Kind: "nodes", Seldom: true, Since: at, Err: "refused", Cure: "ask"}})
	_, text := ask(t, o, "/statusz?format=text")
	for _, want := range []string{"- pods      connected, last word 2026-01-02T03:04:05Z\n",
		"- nodes     not connected since 2026-01-02T03:04:05Z, a part is read now and then, never heard of: refused; ask\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	_, page := ask(t, o, "/metrics")
	for _, want := range []string{`podwall_source_connected{kind="pods"} 1`, `podwall_source_connected{kind="nodes"} 0`,
		`podwall_source_last_word_timestamp_seconds{kind="pods"} 1.767323045e+09`} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if !o.Status().Ready {
		t.Error("a source that is lost makes the node not ready")
	}
}
