// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
	"github.com/podwall/podwall/internal/source/feed"
)

// authors are a real API server with RBAC, and the sources of several nodes at it.
type authors struct {
	t   *testing.T
	cfg *rest.Config
	api kubernetes.Interface
}

// podwall is the user of the sources.
const podwall = "podwall"

func newAuthors(t *testing.T, nodes ...string) *authors {
	t.Helper()
	cfg, err := kubeapitest.StartWith(t, kubeapi.Options{Profile: kubeapi.Full}).RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	a := &authors{t: t, cfg: cfg}
	if a.api, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		_, err := a.api.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}, metav1.CreateOptions{})
		a.must(err)
	}
	for _, namespace := range []string{"shop", "other"} {
		_, err := a.api.CoreV1().Namespaces().Create(t.Context(),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		a.must(err)
	}
	a.grant("reading", rbacv1.PolicyRule{APIGroups: []string{"", "networking.k8s.io"}, Verbs: []string{"list", "watch"},
		Resources: []string{"namespaces", "nodes", "pods", "networkpolicies"}})
	return a
}

func (a *authors) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *authors) grant(name string, rule rbacv1.PolicyRule) {
	a.t.Helper()
	meta := metav1.ObjectMeta{Name: name}
	_, err := a.api.RbacV1().ClusterRoles().Create(a.t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	a.must(err)
	_, err = a.api.RbacV1().ClusterRoleBindings().Create(a.t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: podwall}}}, metav1.CreateOptions{})
	a.must(err)
	kubeapitest.AwaitRights(a.t, a.api, podwall, "", rule) // who is refused asks again after ten minutes
}

func (a *authors) grantEvents() {
	a.t.Helper()
	a.grant("events", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"create"}})
}

// node is a source of a node, with what it counted.
type node struct {
	*Source
	store *cluster.Store
	log   *logBuffer
	mu    sync.Mutex // guards results
	got   map[string]int
}

func (n *node) counted(result EventResult) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[string(result)]
}

// node runs the source of a node until the test ends. Turns and pauses are short.
func (a *authors) node(name string) *node {
	a.t.Helper()
	as := rest.CopyConfig(a.cfg)
	as.Impersonate.UserName = podwall
	n := &node{store: cluster.NewStore(), log: &logBuffer{}, got: map[string]int{}}
	n.Source = New(as, slog.New(slog.NewTextHandler(n.log, nil))).OnNode(name)
	n.notices.turn, n.notices.pause, n.notices.gap = 200*time.Millisecond, 0, time.Millisecond
	n.CountEvents(func(result string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.got[result]++
	})
	ctx, cancel := context.WithCancel(a.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, n.store) }()
	a.t.Cleanup(func() {
		cancel()
		a.must(<-done)
	})
	a.await("the first sync", func() bool { return len(n.store.Missing()) == 0 })
	return n
}

func (a *authors) await(what string, holds func() bool) {
	a.t.Helper()
	for limit := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			a.t.Fatalf("%s did not come", what)
		}
	}
}

func (a *authors) policy(namespace, name string) {
	a.t.Helper()
	p := policy(name)
	p.Namespace = namespace
	_, err := a.api.NetworkingV1().NetworkPolicies(namespace).Create(a.t.Context(), p, metav1.CreateOptions{})
	a.must(err)
}

func (a *authors) events(namespace string) []corev1.Event {
	a.t.Helper()
	list, err := a.api.CoreV1().Events(namespace).List(a.t.Context(), metav1.ListOptions{})
	a.must(err)
	return list.Items
}

// say has nodes announce a finding as soon as they know the policy.
func (a *authors) say(policy cluster.Key, message string, nodes ...*node) {
	a.t.Helper()
	for _, n := range nodes {
		a.await("the policy", func() bool { return n.store.Policy(policy) != nil })
		n.Announce(policy, []cluster.Diagnostic{about(cluster.Error, message)})
	}
}

// Of all nodes that find the same one writes the Event. The next change of the policy
// has the next one, and an agent that starts again writes nothing twice.
func TestOneEventAChangeWhateverTheNodes(t *testing.T) {
	a := newAuthors(t, "n1", "n2", "n3", "n4", "n5")
	a.grantEvents()
	a.policy("shop", "web")
	var all []*node
	for i := range 5 {
		all = append(all, a.node(fmt.Sprint("n", i+1)))
	}
	web := cluster.Key{Namespace: "shop", Name: "web"}
	sum := func(result EventResult) (n int) {
		for _, one := range all {
			n += one.counted(result)
		}
		return n
	}
	a.say(web, "wrong", all...)
	a.await("what three nodes write", func() bool { return sum(EventWritten)+sum(EventExists) == speakers })
	list := a.events("shop")
	if len(list) != 1 || sum(EventWritten) != 1 {
		t.Fatalf("%d Events, written %d times, want one: %v", len(list), sum(EventWritten), list)
	}
	e, p := list[0], all[0].store.Policy(web)
	if e.InvolvedObject.Kind != "NetworkPolicy" || e.InvolvedObject.Name != "web" || string(e.InvolvedObject.UID) != p.UID ||
		!strings.Contains(e.Message, "wrong; mend it") {
		t.Errorf("the Event is %+v", e)
	}

	again := a.node("n1")
	all = append(all, a.node("n2"), a.node("n3"), a.node("n4"), a.node("n5"), again)
	a.say(web, "wrong", all[5:]...)
	a.await("what the next agents write", func() bool { return sum(EventWritten)+sum(EventExists) == 2*speakers })
	if list := a.events("shop"); len(list) != 1 {
		t.Errorf("after a restart there are %d Events", len(list))
	}

	stored, err := a.api.NetworkingV1().NetworkPolicies("shop").Get(t.Context(), "web", metav1.GetOptions{})
	a.must(err)
	stored.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}
	_, err = a.api.NetworkingV1().NetworkPolicies("shop").Update(t.Context(), stored, metav1.UpdateOptions{})
	a.must(err)
	for _, n := range all[:5] {
		a.await("the change", func() bool { return n.store.Policy(web).Version != p.Version })
	}
	a.say(web, "wrong", all[:5]...)
	a.await("what is written about the change", func() bool { return sum(EventWritten) == 2 })
	if list := a.events("shop"); len(list) != 2 {
		t.Errorf("after a change there are %d Events", len(list))
	}
}

// Without the right Events are off, which is said once with the rule that is missing.
// When it is given they are written.
func TestWithoutTheRightEventsAreOff(t *testing.T) {
	a := newAuthors(t, "n1")
	a.policy("shop", "web")
	n := a.node("n1")
	web := cluster.Key{Namespace: "shop", Name: "web"}
	a.say(web, "wrong", n)
	awaitLog(t, n.log, "level=WARN", "not allowed to write Events", `resources: [events], verbs: [create]`)
	for i := range 20 {
		a.say(web, fmt.Sprint("wrong ", i), n)
	}
	if lines := strings.Count(n.log.String(), "Events"); lines != 1 {
		t.Errorf("the log says it more than once:\n%s", n.log)
	}
	if f := n.Feeds(); !slices.ContainsFunc(f, func(f feed.Feed) bool { return f.Connected }) {
		t.Error("the source is not connected any more")
	}
	a.grantEvents()
	n.notices.mu.Lock()
	n.notices.refused = time.Now().Add(-recheck) // ten minutes later
	n.notices.mu.Unlock()
	n.notices.woken.Set()
	a.await("the Event", func() bool { return len(a.events("shop")) == 1 })
	awaitLog(t, n.log, "Events can be written now")
	if e := a.events("shop")[0]; !strings.Contains(e.Message, "wrong 19") {
		t.Errorf("the Event says %q, want what holds now", e.Message)
	}
}

// A namespace that is being deleted takes no Events, and takes nobody else's away.
func TestANamespaceThatGoesConcernsItAlone(t *testing.T) {
	a := newAuthors(t, "n1")
	a.grantEvents()
	a.policy("shop", "web")
	a.policy("other", "web")
	n := a.node("n1")
	a.await("the policy", func() bool { return n.store.Policy(cluster.Key{Namespace: "shop", Name: "web"}) != nil })
	a.must(a.api.CoreV1().Namespaces().Delete(t.Context(), "shop", metav1.DeleteOptions{})) // nobody finishes it here
	a.say(cluster.Key{Namespace: "shop", Name: "web"}, "wrong", n)
	a.await("the refusal", func() bool { return n.counted(EventFailed) == 1 })
	a.say(cluster.Key{Namespace: "other", Name: "web"}, "wrong", n)
	a.await("the Event of the other namespace", func() bool { return len(a.events("other")) == 1 })
	if strings.Contains(n.log.String(), "Events") {
		t.Errorf("the log says\n%s", n.log)
	}
}

// Only the API server's own refusal means that a right is missing. What a webhook of a
// namespace refuses has the Event's name.
func TestAMissingRightIsToldFromOtherRefusals(t *testing.T) {
	events, why := schema.GroupResource{Resource: "events"}, errors.New("no")
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{apierrors.NewForbidden(events, "", why), true},
		{apierrors.NewForbidden(events, "web.0123", why), false},
		{apierrors.NewUnauthorized("no"), false},
		{why, false},
		{nil, false},
	} {
		if got := missesRight(tt.err); got != tt.want {
			t.Errorf("%v: a right is missing: %t", tt.err, got)
		}
	}
}

// What is announced faster than it is written is written once, as it is at last. One
// policy has one Event in a while.
func TestManyAnnouncementsOfAPolicyAreOneEvent(t *testing.T) {
	a := newAuthors(t, "n1")
	a.grantEvents()
	a.policy("shop", "web")
	a.policy("shop", "db")
	n := a.node("n1")
	n.notices.mu.Lock()
	n.notices.pause = time.Hour
	n.notices.mu.Unlock()
	a.say(cluster.Key{Namespace: "shop", Name: "web"}, "first", n)
	a.await("the first Event", func() bool { return n.counted(EventWritten) == 1 })
	for i := range 500 {
		a.say(cluster.Key{Namespace: "shop", Name: "web"}, fmt.Sprint("number ", i), n)
	}
	a.say(cluster.Key{Namespace: "shop", Name: "db"}, "another's", n)
	a.await("the Event about another policy", func() bool { return n.counted(EventWritten) == 2 })
	if list := a.events("shop"); len(list) != 2 {
		t.Errorf("%d Events after a flood, want 2", len(list))
	}
}

// Announcing never waits: not for a server that does not answer, and not when too
// much waits.
func TestAnnouncingNeverWaits(t *testing.T) {
	s, asked, answer := newAPIServer(t), make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			asked <- struct{}{}
			<-answer
		}
		s.serve(w, r)
	}))
	t.Cleanup(slow.Close)
	web := policy("web")
	s.put("nodes", nodeObject("n1", "192.0.2.1"))
	s.put("networkpolicies", web)
	store, source := cluster.NewStore(), New(&rest.Config{Host: slow.URL}, quietly()).OnNode("n1")
	source.notices.gap = time.Hour // one request
	var dropped atomic.Int32
	source.CountEvents(func(result string) {
		if result == string(EventDropped) {
			dropped.Add(1)
		}
	})
	run(t, source, store)
	t.Cleanup(sync.OnceFunc(func() { close(answer) })) // before the source ends
	await(t, store, "web")
	found := []cluster.Diagnostic{about(cluster.Error, "wrong")}
	source.Announce(cluster.Key{Namespace: web.Namespace, Name: web.Name}, found)
	<-asked
	for i := range 2 * maxNotices {
		source.Announce(cluster.Key{Namespace: "shop", Name: fmt.Sprint("p", i)}, found)
		source.Amend(cluster.Key{Namespace: "shop", Name: "web"}, found)
	}
	source.notices.mu.Lock()
	defer source.notices.mu.Unlock()
	if waits := len(source.notices.queue); int(dropped.Load()) != maxNotices || waits != maxNotices {
		t.Errorf("%d wait, %d were dropped, want %d of each", waits, dropped.Load(), maxNotices)
	}
}

// What an author corrects before a node's turn that node does not write, neither what
// waits nor what failed and would be tried again.
func TestWhatIsCorrectedIsNotWritten(t *testing.T) {
	web, now := cluster.Key{Namespace: "shop", Name: "web"}, time.Unix(1_000_000, 0)
	one, two := about(cluster.Error, "one"), about(cluster.Warning, "two")
	store := cluster.NewStore()
	store.Update(func(tx *cluster.Tx) { tx.SetNode(&cluster.Node{Name: "n1"}) })
	n := newNotices(quietly())
	s := &speaker{notices: n, store: store, node: "n1", alone: func() bool { return false }}
	n.add(web, []cluster.Diagnostic{one, two})
	n.amend(web, []cluster.Diagnostic{two})
	if got := n.queue[web].findings; len(got) != 1 || got[0] != two {
		t.Errorf("a half is corrected: %v waits", got)
	}
	n.amend(web, nil)
	if _, got, _ := s.next(now); got != nil {
		t.Errorf("all is corrected: %v is written", got.findings)
	}
	n.amend(web, []cluster.Diagnostic{two})
	if len(n.queue) != 0 {
		t.Error("what was written already is written again because a half of it is gone")
	}
	n.add(web, []cluster.Diagnostic{one})
	_, taken, _ := s.next(now)
	n.amend(web, nil)
	s.settle(web, taken, os.ErrDeadlineExceeded, now)
	if len(n.queue) != 0 || len(n.taken) != 0 {
		t.Errorf("corrected while it was tried: %v waits", n.queue[web].findings)
	}
}

// Where an agent sees its own Node alone every one would be the first.
func TestAnAgentThatSeesNoOtherNodesWritesNothing(t *testing.T) {
	web := cluster.Key{Namespace: "shop", Name: "web"}
	store := cluster.NewStore()
	store.Update(func(tx *cluster.Tx) { tx.SetNode(&cluster.Node{Name: "n1"}) })
	for _, alone := range []bool{true, false} {
		n := newNotices(quietly())
		n.add(web, []cluster.Diagnostic{about(cluster.Error, "wrong")})
		s := &speaker{notices: n, store: store, node: "n1", alone: func() bool { return alone }}
		if _, one, _ := s.next(time.Now()); (one == nil) != alone || len(n.queue) != 0 {
			t.Errorf("alone %t: notice %v, %d wait", alone, one, len(n.queue))
		}
	}
}

// What fails and may pass is tried again, each time after twice the wait, and given up
// in the end. What is newer takes its place.
func TestAnEventThatFailsIsTriedAgain(t *testing.T) {
	web, now := cluster.Key{Namespace: "shop", Name: "web"}, time.Unix(1_000_000, 0)
	n := newNotices(quietly())
	s, one := &speaker{notices: n}, &notice{findings: []cluster.Diagnostic{about(cluster.Error, "wrong")}}
	for i := range eventTries - 1 {
		if got := s.settle(web, one, os.ErrDeadlineExceeded, now); got != nothing || n.queue[web] != one {
			t.Fatalf("try %d: outcome %d, waits %v", i, got, n.queue[web])
		}
		if wait := one.at.Sub(now); wait != eventRetry<<i {
			t.Errorf("try %d: the next after %s", i, wait)
		}
		delete(n.queue, web)
	}
	if got := s.settle(web, one, os.ErrDeadlineExceeded, now); got != givenUp || n.queue[web] != nil {
		t.Errorf("the last try: outcome %d, waits %v", got, n.queue[web])
	}
	n.add(web, []cluster.Diagnostic{about(cluster.Error, "newer")})
	s.settle(web, &notice{}, os.ErrDeadlineExceeded, now)
	if len(n.queue[web].findings) != 1 {
		t.Error("what failed took the place of what is newer")
	}
}
