// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/observe"
)

// podStarts tells which pods of this node started without having been announced at the
// gate. Each pod is judged once, when it has an address for the first time.
type podStarts struct {
	judged map[cluster.Key]string // with the pod's UID
}

// judge returns the pods that started unannounced by these changes. Those of the first
// list are not judged: they may have been announced to an earlier agent.
func (s *podStarts) judge(node string, first bool, changes []cluster.Change[cluster.Pod],
	announced func(*cluster.Pod) bool) (without []cluster.Key) {
	if s.judged == nil {
		s.judged = map[cluster.Key]string{}
	}
	for _, c := range changes {
		p := c.New
		if p == nil {
			delete(s.judged, c.Old.Key)
			continue
		}
		uid, known := s.judged[p.Key]
		undecided := len(p.IPs) == 0 && !p.HostNetwork && !p.Finished
		if p.Node != node || known && uid == p.UID || undecided && !first {
			continue
		}
		s.judged[p.Key] = p.UID
		if !first && p.Networked() && !announced(p) {
			without = append(without, p.Key)
		}
	}
	return without
}

// gateBypassed is the subject of the problem that pods start without the gate.
const gateBypassed = "start gate bypassed"

// noteStarts counts the pods that started without the gate. Where others were announced
// it is a problem: something else wrote the runtime's configuration. It goes with the
// next pod that is announced.
func (l *Loop) noteStarts(d cluster.Delta) {
	if l.Gate == nil {
		return
	}
	without := l.starts.judge(l.Node, !l.ready, d.Pods, l.Gate.wasAnnounced)
	l.Observer.AddUnannounced(len(without))
	used, count, last := l.Gate.missed(without)
	switch {
	case !used || count == 0:
		if l.bypassed {
			l.Observer.ClearProblem(gateBypassed)
		}
		l.bypassed = false
	case len(without) > 0:
		p := observe.Problem{Subject: gateBypassed,
			Text: fmt.Sprintf("pod %s started without the start gate, the last of %d since one was announced", last,
				count),
			Cure: "run podwall-gate status on the node, then podwall-gate install; install --watch keeps it installed"}
		l.bypassed = true
		l.Observer.SetProblem(p)
		l.Log.Warn("pods start without the start gate", "pod", last.String(), "count", count, "cure", p.Cure)
	}
}

// attendance is what the gate heard. The zero value has heard nothing.
type attendance struct {
	used  bool        // a pod was announced, and the gate was not reported as removed
	gone  []departed  // withdrawn last, the oldest first
	count int         // pods without the gate, since one was announced
	last  cluster.Key // the last of them
}

type departed struct {
	pod cluster.Key
	uid string
}

// maxGone bounds the withdrawn sandboxes that are remembered: until the API names the
// address of a pod that was short.
const maxGone = 256

func (a *attendance) withdrawn(pod cluster.Key, uid string) {
	if len(a.gone) == maxGone {
		a.gone = append(a.gone[:0], a.gone[1:]...)
	}
	a.gone = append(a.gone, departed{pod, uid})
}

func (d departed) is(p *cluster.Pod) bool {
	return d.pod == p.Key && (d.uid == p.UID || d.uid == "" || p.UID == "")
}

// wasAnnounced reports whether a pod has a sandbox that was announced, or had one lately.
func (d *Gate) wasAnnounced(p *cluster.Pod) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.pods {
		if (departed{podKey(a), a.UID}).is(p) {
			return true
		}
	}
	for _, g := range d.heard.gone {
		if g.is(p) {
			return true
		}
	}
	return false
}

// missed adds pods that were not announced, and returns whether the gate is used, and how
// many there are since a pod was announced.
func (d *Gate) missed(pods []cluster.Key) (used bool, count int, last cluster.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(pods); n > 0 {
		d.heard.count, d.heard.last = d.heard.count+n, pods[n-1]
	}
	return d.heard.used, d.heard.count, d.heard.last
}

// Off notes that the gate was taken out of the runtime's configuration on purpose: that
// pods start without it is no problem then.
func (d *Gate) Off() {
	d.mu.Lock()
	d.heard.used = false
	d.mu.Unlock()
	d.hurry.Set()
}
