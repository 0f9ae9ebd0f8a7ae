// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// What agents saw says whether a policy can be enforced; what they do not know makes it unknown.
func TestWhatAnAuditKnows(t *testing.T) {
	would := flow("n1", "shop/client", "shop/web-0", 1, "shop/web", "shop/all")
	would.Verdict = denied.WouldDeny
	whole := denied.Summary{Recording: true, Since: time.Unix(0, 0)}
	young, flooded, forgetful, late, early := whole, whole, whole, whole, whole
	late.Suppressed, late.SuppressedTo = 3, time.Now().Add(-time.Minute)
	early.Suppressed, early.SuppressedTo = 3, time.Now().Add(-2*time.Hour)
	young.Since, flooded.Suppressed = time.Now(), 3
	forgetful.Forgotten, forgetful.ForgottenTo = 1, time.Now()
	for name, c := range map[string]struct {
		answer  string
		flows   int
		unknown string
	}{
		"nothing was seen":    {answerOf(whole), 0, ""},
		"something was":       {answerOf(whole, would), 1, ""},
		"of another policy":   {answerOf(whole, flow("n1", "shop/client", "shop/db", 1, "shop/db")), 0, ""},
		"nothing is recorded": {answerOf(denied.Summary{Why: "off"}), 0, "node n1: it records nothing: off"},
		"not for so long":     {answerOf(young), 0, "only (it records since then)"},
		"some have no record": {answerOf(flooded, would), 1, "3 packets have no record"},
		"some have none just now": {answerOf(late), 0, "3 packets have no record, the last ones about " +
			late.SuppressedTo.UTC().Format(time.RFC3339)},
		"some had none long ago": {answerOf(early, would), 1, ""},
		"records gave way":       {answerOf(forgetful), 0, "only (1 older ones are forgotten)"},
		"the node does not tell": {"", 0, "node n1: no right"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeAgents{pods: []agentPod{node("n1")}, answers: map[string]string{"n1": c.answer}}
			if c.answer == "" {
				f.answers, f.err = nil, errors.New("no right")
			}
			a := &auditCommand{source: newSource(Streams{Out: io.Discard, Err: io.Discard}), agents: f, since: time.Hour}
			r := auditReport{Policies: []auditedPolicy{{Policy: cluster.Key{Namespace: "shop", Name: "web"},
				Ingress: slices.Repeat([]cluster.Key{{Namespace: "shop", Name: "web-0"}}, 7)}}}
			if err := a.flows(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
			if n := len(r.Policies[0].Flows); n != c.flows || !strings.Contains(strings.Join(r.Unknown, "\n"), c.unknown) ||
				(len(r.Unknown) > 0) != (c.unknown != "") {
				t.Errorf("%d flows, unknown %q", n, r.Unknown)
			}
			says := "denies nothing that was seen in the last 1h0m0s"
			switch {
			case c.flows > 0:
				says = "would have denied shop/client (10.244.1.10) to shop/web-0 (10.244.2.20) 8080/tcp\n  enforced, it denies traffic that was seen"
			case c.unknown != "":
				says = "it is not known what it would deny"
			}
			if text := r.text(time.Hour); !strings.Contains(text, says) || !strings.Contains(text, "ingress of 7 pods") ||
				!strings.Contains(text, "2 more") {
				t.Errorf("the text is\n%s", text)
			}
		})
	}
}
