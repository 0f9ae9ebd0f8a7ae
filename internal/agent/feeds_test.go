// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/source/feed"
)

// What is read now and then is not said to be never seen.
func TestTheProblemOfASourceSaysWhatIsTrue(t *testing.T) {
	now := time.Unix(10_000, 0)
	lost := feed.Feed{Kind: "nodes", Since: now.Add(-lostAfter), Err: "only the own Node can be read"}
	for _, seldom := range []bool{false, true} {
		lost.Seldom = seldom
		p := staleness(lost, now)
		if p == nil || strings.Contains(p.Text, "changes are not seen") == seldom || !strings.Contains(p.Text, lost.Err) {
			t.Errorf("seldom %t: %+v", seldom, p)
		}
	}
	if p := staleness(lost, now.Add(-time.Second)); p != nil {
		t.Errorf("a problem too early: %+v", p)
	}
}
