// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
)

// How Events on pods are paced. A pod can cause as many denied flows as it likes.
const (
	podEventPeriod = time.Minute
	maxPodEvents   = 30 // of the node in a period
	maxPodEventsNS = 10 // and of a namespace
	podEventAgain  = 10 * time.Minute
)

// PodReason is the reason of an Event on a pod.
type PodReason string

// The reasons: a flow was denied, or would be by policies in audit mode, which takes at most half of the
// places.
const (
	PolicyDenied    PodReason = "PolicyDenied"
	PolicyWouldDeny PodReason = "PolicyWouldDeny"
)

// podEvent is what waits to be written about a pod.
type podEvent struct {
	pod       cluster.Key
	reason    PodReason
	key, text string
}

// podEvents are Events about pods of this node. Each namespace has a share of its own; what is above
// is dropped, and counted.
type podEvents struct {
	log   *slog.Logger
	now   func() time.Time
	queue chan podEvent
	count func(EventResult)

	mu    sync.Mutex // guards what follows
	began time.Time  // the period
	all   int
	by    map[string]int // by namespace
	told  map[podEvent]time.Time

	refused bool // the log says so; used by the goroutine that writes
}

func newPodEvents(log *slog.Logger) *podEvents {
	return &podEvents{log: log, now: time.Now, queue: make(chan podEvent, maxPodEvents),
		count: func(EventResult) {}, by: map[string]int{}, told: map[podEvent]time.Time{}}
}

// NotifyPod writes an Event on a pod of this node, soon, unless one with the key was written in the
// last ten minutes or the pod's namespace has had its share of the minute. It never waits.
func (s *Source) NotifyPod(pod cluster.Key, reason PodReason, key, text string) {
	if s.node != "" {
		s.onPods.add(podEvent{pod: pod, reason: reason, key: key, text: text})
	}
}

func (p *podEvents) add(e podEvent) {
	if !p.admit(e) {
		return
	}
	select {
	case p.queue <- e:
	default:
		p.count(EventDropped)
	}
}

// admit takes a place of the period, and reports whether there is one.
func (p *podEvents) admit(e podEvent) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if now.Sub(p.began) >= podEventPeriod {
		p.began, p.all = now, 0
		clear(p.by)
		for k, at := range p.told {
			if now.Sub(at) >= podEventAgain {
				delete(p.told, k)
			}
		}
	}
	id := podEvent{pod: e.pod, reason: e.reason, key: e.key}
	if at, told := p.told[id]; told && now.Sub(at) < podEventAgain {
		return false
	}
	all, of := maxPodEvents, maxPodEventsNS
	if e.reason == PolicyWouldDeny {
		all, of = all/2, of/2
	}
	if p.all >= all || p.by[e.pod.Namespace] >= of {
		p.count(EventDropped)
		return false
	}
	p.all++
	p.by[e.pod.Namespace]++
	p.told[id] = now
	return true
}

// run writes what waits until ctx ends.
func (p *podEvents) run(ctx context.Context, client rest.Interface, store *cluster.Store, node string) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-p.queue:
			p.write(ctx, client, store.Pod(e.pod), e, node)
			pause(ctx, eventGap)
		}
	}
}

// write writes one Event. What fails is not tried again: the flow goes on, or does not matter any
// more.
func (p *podEvents) write(ctx context.Context, client rest.Interface, pod *cluster.Pod, e podEvent, node string) {
	if pod == nil {
		p.count(EventDropped)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := client.Post().Namespace(pod.Key.Namespace).Resource("events").Body(eventOnPod(pod, e, node, p.now())).
		Do(ctx).Error()
	switch {
	case err == nil:
		p.refused = false
	case missesRight(err) && !p.refused:
		p.refused = true
		p.log.Warn("not allowed to write Events: denied flows are told to kubectl podwall flows only",
			"cure", `bind a ClusterRole with the rule apiGroups: [""], resources: [events], verbs: [create]`)
	}
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		p.count(resultOf(err))
	default:
		p.count(EventFailed)
	}
}

func eventOnPod(pod *cluster.Pod, e podEvent, node string, now time.Time) *corev1.Event {
	const digits = 16
	sum := sha256.Sum256([]byte(strings.Join([]string{pod.UID, string(e.reason), e.key,
		now.Truncate(podEventAgain).String()}, "\x00")))
	name := pod.Key.Name[:min(len(pod.Key.Name), maxName-1-digits)]
	at, typ := metav1.NewTime(now), corev1.EventTypeWarning
	if e.reason == PolicyWouldDeny { // nothing is wrong yet
		typ = corev1.EventTypeNormal
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Key.Namespace,
			Name: strings.TrimRight(name, ".-") + "." + hex.EncodeToString(sum[:])[:digits]},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Key.Namespace,
			Name: pod.Key.Name, UID: types.UID(pod.UID)},
		Type: typ, Reason: string(e.reason), Message: shorten(e.text, maxEventText),
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: "podwall-agent", Host: node},
		ReportingController: "podwall.io/agent", ReportingInstance: node,
	}
}
