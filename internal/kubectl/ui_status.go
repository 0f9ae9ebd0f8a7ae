// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// statusValue is what agents enforce.
type statusValue struct {
	Text string `json:"text"`
	Good bool   `json:"good"`
	// At is when the agents were asked, Read when the policies were read, and Now when this is answered.
	At   string `json:"at"`
	Read string `json:"read"`
	Now  string `json:"now"`
	// Policies says of each how many nodes enforce it, in the version that Versions has.
	Policies map[string]string `json:"policies"`
	Versions map[string]string `json:"versions"`
}

// status asks all agents, unless that was done a moment ago about the same policies. One asks at a time.
func (l *uiLive) status(ctx context.Context, _ url.Values) (any, error) {
	if l.command.source.files() {
		return nil, errors.New(noAgents)
	}
	if err := acquire(ctx, l.asking); err != nil {
		return nil, err
	}
	defer func() { <-l.asking }()
	before, done, err := l.state.take(ctx)
	if err != nil {
		return nil, err
	}
	number := before.number
	done()
	if time.Since(l.statusAt) < statusTime && l.statusOf == number {
		return l.statusValue.now(), nil
	}
	s := *l.command.source
	s.live = true
	c := &statusCommand{source: &s, agents: l.command.agents, facts: l.command.facts, pause: askAgain}
	asked := time.Now()
	r, err := c.ask(ctx)
	if err != nil {
		return nil, err
	}
	sc, done, err := l.state.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	l.statusValue, l.statusAt, l.statusOf = sc.statusOf(r, asked), time.Now(), sc.number
	return l.statusValue.now(), nil
}

// now is the value with the time at which it is answered, by which the page tells how old it is.
func (v statusValue) now() statusValue {
	v.Now = timeOf(time.Now())
	return v
}

// timeOf writes a time for the page.
func timeOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// statusOf says of each policy on how many nodes it is in force, as the agents said when they were asked.
func (sc *uiScene) statusOf(r statusReport, asked time.Time) statusValue {
	v := statusValue{Text: plainLines(r.String()), Good: r.status() == nil, At: timeOf(asked),
		Read: sc.readAt(), Policies: map[string]string{}, Versions: map[string]string{}}
	for _, why := range r.Unknown {
		v.Text += plainLines("not known: " + why + "\n")
	}
	all := len(r.Nodes) + len(r.WithoutAgent)
	for _, p := range sc.snap.Policies {
		version, err := strconv.ParseUint(p.Version, 10, 64)
		if err != nil {
			continue
		}
		n := 0
		for _, node := range r.Nodes {
			if node.reaches(version) {
				n++
			}
		}
		word := "enforced"
		if p.Audit {
			word = "in audit mode"
		}
		v.Versions[p.Key.String()] = p.Version
		v.Policies[p.Key.String()] = fmt.Sprintf("%s on %d of %d nodes", word, n, all)
	}
	return v
}
