// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/logging"
)

// maxNamed is how many objects of one pass the log names.
const maxNamed = 200

// change is what the log says of an object that changed.
type change struct {
	kind, object, what string
	fields             []string // what differs of an object that was there before
}

// nameChanges names in the log the objects that a pass takes over. The first pass has
// all objects there are, so they are counted only.
func (l *Loop) nameChanges(d cluster.Delta) {
	ctx := context.Background() // slog asks for one and nothing here uses it
	if !l.Log.Enabled(ctx, logging.LevelObjects) {
		return
	}
	if !l.ready {
		l.Log.Log(ctx, logging.LevelObjects, "objects at the start", "revision", d.Revision,
			"namespaces", len(d.Namespaces),
			"nodes", len(d.Nodes), "pods", len(d.Pods), "policies", len(d.Policies))
		return
	}
	list, more := changesOf(d, maxNamed)
	for _, c := range list {
		l.Log.Log(ctx, logging.LevelObjects, "object changed", "revision", d.Revision, "kind", c.kind,
			"object", c.object,
			"change", c.what, "fields", strings.Join(c.fields, ","))
	}
	if more > 0 {
		l.Log.Log(ctx, logging.LevelObjects, "more objects changed than are named", "revision", d.Revision,
			"count", more)
	}
}

// changesOf returns what changed, up to a limit, and how many more there are.
func changesOf(d cluster.Delta, limit int) (list []change, more int) {
	limit = max(limit, 0)
	list = appendChanges(list, limit, "Namespace", d.Namespaces, func(n *cluster.Namespace) string { return n.Name },
		namespaceFields)
	list = appendChanges(list, limit, "Node", d.Nodes, func(n *cluster.Node) string { return n.Name }, nodeFields)
	list = appendChanges(list, limit, cluster.KindPod, d.Pods, func(p *cluster.Pod) string { return p.Key.String() },
		podFields)
	list = appendChanges(list, limit, convert.KindPolicy, d.Policies,
		func(p *cluster.Policy) string { return p.Key.String() },
		func(_, _ *cluster.Policy) []string { return []string{"spec"} })
	return list, len(d.Namespaces) + len(d.Nodes) + len(d.Pods) + len(d.Policies) - len(list)
}

// appendChanges adds the changes of one kind for which there is room.
func appendChanges[T any](list []change, limit int, kind string, changes []cluster.Change[T], name func(*T) string,
	fields func(before, now *T) []string) []change {
	for _, c := range changes[:min(len(changes), limit-len(list))] {
		switch {
		case c.Old == nil && c.New == nil:
		case c.Old == nil:
			list = append(list, change{kind: kind, object: name(c.New), what: "added"})
		case c.New == nil:
			list = append(list, change{kind: kind, object: name(c.Old), what: "deleted"})
		default:
			list = append(list, change{kind, name(c.New), "changed", fields(c.Old, c.New)})
		}
	}
	return list
}

func namespaceFields(before, now *cluster.Namespace) []string {
	return differ(field{"labels", slices.Equal(before.Labels, now.Labels)})
}

func nodeFields(before, now *cluster.Node) []string {
	return differ(field{"addresses", slices.Equal(before.Addrs, now.Addrs)})
}

func podFields(before, now *cluster.Pod) []string {
	list := differ(
		field{"uid", before.UID == now.UID},
		field{"labels", slices.Equal(before.Labels, now.Labels)},
		field{"node", before.Node == now.Node},
		field{"addresses", slices.Equal(before.IPs, now.IPs)},
		field{"hostNetwork", before.HostNetwork == now.HostNetwork},
		field{"finished", before.Finished == now.Finished},
		field{"terminating", before.Terminating == now.Terminating},
	)
	if len(list) == 0 {
		list = []string{"ports or annotations"}
	}
	return list
}

// field is a part of an object, and whether it stayed the same.
type field struct {
	name string
	same bool
}

func differ(fields ...field) (names []string) {
	for _, f := range fields {
		if !f.same {
			names = append(names, f.name)
		}
	}
	return names
}
