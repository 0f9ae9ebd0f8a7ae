// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kube

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// pod makes a pod on a node, and returns its key when the source knows it.
func (a *authors) pod(n *node, namespace, name, node string) cluster.Key {
	a.t.Helper()
	_, err := a.api.CoreV1().ServiceAccounts(namespace).Create(a.t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	_ = err // it is there after the first pod
	_, err = a.api.CoreV1().Pods(namespace).Create(a.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "none"}}}},
		metav1.CreateOptions{})
	a.must(err)
	k := cluster.Key{Namespace: namespace, Name: name}
	a.await("the pod", func() bool { return n.store.Pod(k) != nil })
	return k
}

// A denied flow is an Event on the pod, once in a while, for whoever may read the Events of its
// namespace.
func TestADeniedFlowIsAnEventOnItsPod(t *testing.T) {
	a := newAuthors(t, "n1")
	n := a.node("n1")
	web := a.pod(n, "shop", "web", "n1")
	n.NotifyPod(web, PolicyDenied, "a", "denied 80/tcp from a")
	awaitLog(t, n.log, "not allowed to write Events", "denied flows", `resources: [events], verbs: [create]`)
	a.grantEvents()
	a.await("the right", func() bool {
		n.NotifyPod(web, PolicyDenied, fmt.Sprint(time.Now()), "denied 80/tcp from b")
		time.Sleep(500 * time.Millisecond) // each takes one of ten places of the minute
		return len(a.events("shop")) > 0
	})
	e := a.events("shop")[0]
	if e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != "web" || e.Reason != "PolicyDenied" ||
		e.Message != "denied 80/tcp from b" || string(e.InvolvedObject.UID) != n.store.Pod(web).UID {
		t.Errorf("the Event is %+v", e)
	}
}

// One namespace takes no other's place, and the node has a bound; a minute later there is room again.
func TestEventsOnPodsAreBounded(t *testing.T) {
	now, dropped := time.Unix(1_700_000_000, 0), 0
	p := newPodEvents(slog.New(slog.DiscardHandler))
	p.now, p.count = func() time.Time { return now }, func(EventResult) { dropped++ }
	add := func(namespace string, n int) {
		for i := range n {
			p.add(podEvent{pod: cluster.Key{Namespace: namespace, Name: "p"}, key: fmt.Sprint(i), text: "t"})
		}
	}
	add("a", 100)
	if len(p.queue) != maxPodEventsNS || dropped != 100-maxPodEventsNS {
		t.Errorf("one namespace has %d Events, %d dropped", len(p.queue), dropped)
	}
	for _, ns := range []string{"b", "c", "d"} {
		add(ns, 100)
	}
	if len(p.queue) != maxPodEvents {
		t.Errorf("the node has %d Events", len(p.queue))
	}
	for len(p.queue) > 0 {
		<-p.queue
	}
	now = now.Add(podEventPeriod)
	add("a", 100) // of which ten were told, and not again so soon
	for len(p.queue) > 0 {
		if e := <-p.queue; len(e.key) < 2 {
			t.Errorf("%q is told again", e.key)
		}
	}
	p.add(podEvent{pod: cluster.Key{Namespace: "z", Name: "p"}, reason: PolicyWouldDeny, key: "0"})
	p.add(podEvent{pod: cluster.Key{Namespace: "z", Name: "p"}, reason: PolicyDenied, key: "0"})
	if len(p.queue) != 2 {
		t.Errorf("a flow that is denied after an audit is not told: %d Events", len(p.queue))
	}
	for i := range 100 {
		p.add(podEvent{pod: cluster.Key{Namespace: "y", Name: "p"}, reason: PolicyWouldDeny, key: fmt.Sprint(i)})
	}
	if n := len(p.queue); n > 2+maxPodEventsNS/2 {
		t.Errorf("audits take %d places", n-2)
	}
	for len(p.queue) > 0 {
		<-p.queue
	}
	for range 20 {
		now = now.Add(podEventAgain)
		add("a", 1)
	}
	if len(p.queue) != 20 || len(p.told) > maxPodEvents {
		t.Errorf("%d Events in 20 periods; %d remembered", len(p.queue), len(p.told))
	}
}

// The name of an Event is one that the API takes, whatever the pod's.
func TestAnEventOnAPodHasAName(t *testing.T) {
	pod := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: strings.Repeat("a", 253)}, UID: "u"}
	e := eventOnPod(pod, podEvent{key: "k", text: strings.Repeat("t", 5000)}, "n1", time.Unix(0, 0))
	if len(e.Name) > 253 || len(e.Message) > maxEventText {
		t.Errorf("a name of %d bytes, a message of %d", len(e.Name), len(e.Message))
	}
}
