// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/source/feed"
)

// Feeder is a source that says how it stands.
type Feeder interface{ Feeds() []feed.Feed }

// When staleness becomes a problem: a source that is not connected for so long,
// or one that is and hears nothing. API servers end watches after ten minutes, and
// opening the next is a word.
const (
	lostAfter   = time.Minute
	silentAfter = 15 * time.Minute
)

// Feeds tells the observer how a source stands.
type Feeds struct {
	source   Feeder
	observer *observe.Observer
	log      *slog.Logger
	known    map[string]bool // subjects that have a problem
}

// NewFeeds returns what tells the observer about a source.
func NewFeeds(source Feeder, observer *observe.Observer, log *slog.Logger) *Feeds {
	return &Feeds{source: source, observer: observer, log: log, known: map[string]bool{}}
}

// Run looks once a second until ctx ends.
func (f *Feeds) Run(ctx context.Context) {
	for ctx.Err() == nil {
		f.look(time.Now())
		pause(ctx, time.Second)
	}
}

func (f *Feeds) look(now time.Time) {
	list := f.source.Feeds()
	f.observer.SetFeeds(list)
	for _, one := range list {
		subject := "source of " + one.Kind
		p := staleness(one, now)
		switch {
		case p != nil:
			p.Subject = subject
			if !f.known[subject] {
				p.Log(f.log)
			}
			f.observer.SetProblem(*p)
		case f.known[subject]:
			observe.LogResolved(f.log, subject)
			f.observer.ClearProblem(subject)
		}
		f.known[subject] = p != nil
	}
}

// staleness returns the problem of a feed, or nil. It does not block: the kernel
// enforces what was known, and a restart would know less (ADR 0014).
func staleness(f feed.Feed, now time.Time) *observe.Problem {
	const consequence = "; changes are not seen, what was known before stays enforced"
	switch lost, silent := now.Sub(f.Since), now.Sub(f.Heard); {
	case !f.Connected && lost >= lostAfter:
		text := "not connected since " + f.Since.UTC().Format(time.RFC3339)
		if f.Err != "" {
			text += ": " + f.Err
		}
		if !f.Seldom { // else the cause says what is lost
			text += consequence
		}
		return &observe.Problem{Text: text, Cure: f.Cure}
	case f.Connected && f.Kind != "manifests" && silent >= silentAfter:
		return &observe.Problem{Text: fmt.Sprintf("nothing was heard since %s, although a watch is open%s",
			f.Heard.UTC().Format(time.RFC3339), consequence),
			Cure: "look at the proxies between this node and the API server"}
	}
	return nil
}
