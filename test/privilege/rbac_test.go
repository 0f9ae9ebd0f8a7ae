// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/observe"
)

// grain is one thing that a role allows.
type grain struct{ group, resource, verb string }

func (g grain) String() string { return g.verb + " " + g.resource }

// grains takes a role apart, and puts it together without one of them.
func grains(rules []rbacv1.PolicyRule) (list []grain) {
	for _, r := range rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					list = append(list, grain{group, resource, verb})
				}
			}
		}
	}
	return list
}

func without(g grain, all []grain) (rules []rbacv1.PolicyRule) {
	for _, one := range all {
		if one != g {
			rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{one.group}, Resources: []string{one.resource}, Verbs: []string{one.verb}})
		}
	}
	return rules
}

// The role has nothing too much: the agent misses each grain of it, and says which
// rule is missing. Servers that send lists by watches ask for no right to list.
func TestEachRuleOfTheRoleIsMissed(t *testing.T) {
	const author = "author"
	all := grains(readManifest(t, manifestFile).role.Rules)
	var nodes []string
	for i := range all {
		nodes = append(nodes, fmt.Sprintf("node%d", i+1))
	}
	w := newWorld(t, lab.Routed, nodes, "--feature-gates=WatchList=false")
	w.createNamespace(author)
	for i := range 10 { // of which each node has some to write about
		w.createOddPolicy(author, fmt.Sprint("odd", i))
	}
	agents := map[grain]*box{}
	for i, g := range all {
		role := w.m.role.DeepCopy()
		role.Rules = without(g, all)
		account := fmt.Sprintf("without-%d", i)
		w.grant(account, *role)
		pod := w.m.pod.DeepCopy()
		if g.verb == "list" {
			c := container(t, pod, "agent")
			c.Args = append(c.Args, "--cache-sync-timeout=20s") // the last one counts
		}
		agents[g] = w.host(nodes[i], account).start(t, pod, "agent", nil)
	}
	for g, a := range agents {
		a.misses(t, g)
	}
}

// misses wants that an agent says which rule is missing. Without the right to list
// it ends when its patience is over; else it goes on with what it has.
func (b *box) misses(t *testing.T, g grain) {
	t.Helper()
	if g.resource == "events" {
		b.missesEvents(t)
		return
	}
	group := g.group
	if group == "" {
		group = `""`
	}
	cure := fmt.Sprintf("bind a ClusterRole with the rule apiGroups: [%s], resources: [%s], verbs: [list, watch]", group, g.resource)
	last := ""
	if g.verb == "list" {
		last = "no complete list of [" + g.resource + "] after 20s: " + g.resource + ": not allowed to list and watch"
		b.Exits(1)
	} else {
		b.status(t, "the cure for "+g.String(), func(s observe.Status) bool {
			i := slices.IndexFunc(s.Feeds, func(f observe.Feed) bool { return f.Kind == g.resource })
			return i >= 0 && !s.Feeds[i].Connected && strings.Contains(s.Feeds[i].Error, "not allowed to list and watch") && s.Feeds[i].Cure == cure
		})
	}
	text := strings.ReplaceAll(b.Log(), `\"`, `"`)
	if !strings.Contains(text, `"cure":"`+cure) || !strings.Contains(text, last) {
		t.Errorf("without %s the log has not the cure, and %q:\n%s", g, last, text)
	}
}

// missesEvents wants that an agent says once which rule is missing, and is ready.
func (b *box) missesEvents(t *testing.T) {
	t.Helper()
	const cure = `bind a ClusterRole with the rule apiGroups: [""], resources: [events], verbs: [create]`
	log := func() string { return strings.ReplaceAll(b.Log(), `\"`, `"`) }
	b.status(t, "the line about Events", func(s observe.Status) bool { return s.Ready && strings.Contains(log(), cure) })
	if n := strings.Count(log(), cure); n != 1 {
		t.Errorf("without the right to write Events the log says %d times: %s", n, cure)
	}
}
