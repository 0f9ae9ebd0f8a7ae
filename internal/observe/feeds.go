// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

// SetFeeds records how the source stands.
func (o *Observer) SetFeeds(feeds []feed.Feed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.feeds = slices.Clone(feeds)
	o.metrics.setFeeds(feeds)
}

// Causes says why first lists are missing, by what the source met: a text that
// begins with ": ", or an empty one if nothing went wrong.
func (o *Observer) Causes() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.causes(time.Now())
}

// causes joins the kinds of which the same is said.
func (o *Observer) causes(now time.Time) string {
	type cause struct{ err, cure string }
	kinds, since := map[cause][]string{}, map[cause]time.Time{}
	var order []cause
	for _, f := range o.feeds {
		if f.Err == "" || f.Kind != manifests && !o.isMissing(f.Kind) {
			continue
		}
		c := cause{f.Err, f.Cure}
		if kinds[c] == nil {
			order, since[c] = append(order, c), f.Since
		}
		kinds[c] = append(kinds[c], f.Kind)
	}
	var b strings.Builder
	for i, c := range order {
		fmt.Fprintf(&b, "%s%s: %s (for %s)", []string{": ", "; "}[min(i, 1)], strings.Join(kinds[c], ", "), c.err,
			now.Sub(since[c]).Round(time.Second))
		if c.cure != "" {
			b.WriteString("; " + c.cure)
		}
	}
	return b.String()
}

// manifests is the one feed of a source that reads a directory.
const manifests = "manifests"

func (o *Observer) isMissing(kind string) bool {
	return slices.ContainsFunc(o.missing, func(k cluster.Kind) bool { return k.String() == kind })
}

// feedList returns the feeds for the status page.
func (o *Observer) feedList() []Feed {
	list := make([]Feed, 0, len(o.feeds))
	for _, f := range o.feeds {
		one := Feed{Kind: f.Kind, Connected: f.Connected, Seldom: f.Seldom, Since: f.Since, Error: f.Err, Cure: f.Cure,
			Synced: !o.isMissing(f.Kind) && (f.Kind != manifests || len(o.missing) == 0)}
		if heard := f.Heard; !heard.IsZero() {
			one.LastWord = &heard
		}
		list = append(list, one)
	}
	return list
}

// String returns one line for people, without the kind.
func (f Feed) String() string {
	line := "connected"
	if !f.Connected {
		line = "not connected since " + f.Since.Format(time.RFC3339)
	}
	if f.Seldom {
		line += ", a part is read now and then"
	}
	if f.LastWord == nil {
		line += ", never heard of"
	} else {
		line += ", last word " + f.LastWord.Format(time.RFC3339)
	}
	if !f.Synced {
		line += ", no complete list yet"
	}
	if f.Error != "" {
		line += ": " + f.Error
	}
	if f.Cure != "" {
		line += "; " + f.Cure
	}
	return line
}
