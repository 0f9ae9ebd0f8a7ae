// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/explain/reach"
	"github.com/podwall/podwall/internal/logging"
)

// explainValue is the text of explain.
type explainValue struct {
	Title   string `json:"title"`
	Allowed bool   `json:"allowed"`
	Text    string `json:"text"`
}

// explainOf answers why a flow is allowed or denied. The ends are references as on the command
// line; port is that of the graph, or in dst.
func (sc *uiScene) explainOf(ctx context.Context, q url.Values) (any, error) {
	src, dst := strings.TrimSpace(q.Get("src")), strings.TrimSpace(q.Get("dst"))
	if q.Get("port") == "" { // written by the user
		return sc.explained(ctx, src, dst)
	}
	port, err := sc.port(q)
	if err != nil {
		return nil, err
	}
	from, to := sc.unit(src), sc.unit(dst)
	if from == nil || to == nil {
		return sc.explained(ctx, src, withPort(dst, port))
	}
	return sc.explainUnits(ctx, port, from, to)
}

func (sc *uiScene) unit(name string) *reach.Unit {
	list := sc.reach.Units()
	i := slices.IndexFunc(list, func(u *reach.Unit) bool { return u.Name == name })
	if i < 0 {
		return nil
	}
	return list[i]
}

// explainUnits explains flows between two workloads: of their pods that differ, as explain does,
// and pods that have another verdict all the same, because of their addresses.
func (sc *uiScene) explainUnits(ctx context.Context, port matrix.Port, src, dst *reach.Unit) (any, error) {
	samples, err := sc.reach.Samples(ctx, port, src, dst)
	if err != nil {
		return nil, err
	}
	v := explainValue{Title: fmt.Sprintf("%s to %s %s", src.Name, dst.Name, port), Allowed: true}
	seen := map[bool]bool{}
	var texts []string
	add := func(src, dst string) error {
		r, err := sc.bounded(ctx, src, withPort(dst, port))
		if err != nil {
			return err
		}
		texts = append(texts, plainLines(r.String()))
		v.Allowed = v.Allowed && r.Allowed
		for _, a := range r.Answers {
			seen[a.Allowed] = true
		}
		return ctx.Err()
	}
	kinds := sc.kinds(src.Name) * sc.kinds(dst.Name)
	if src != dst && kinds <= maxKinds {
		if err := add(src.Name, dst.Name); err != nil {
			return nil, err
		}
	}
	for _, s := range samples {
		if !seen[s.Allowed] {
			if err := add(sampled(src, s.Source), sampled(dst, s.Destination)); err != nil {
				return nil, err
			}
		}
	}
	if len(texts) == 0 {
		return nil, errors.New("there is no flow: a pod always reaches itself, and it is the only one of " + src.Name)
	}
	if kinds > maxKinds {
		texts = append(texts, fmt.Sprintf("One flow of each verdict, of %d pairs of pods that differ; write the names "+
			"of others above.\n", kinds))
	}
	v.Text, v.Title = strings.Join(texts, "\n"), logging.Plain(v.Title)
	return v, nil
}

// maxKinds is how many pairs of pods that differ are explained one by one.
const maxKinds = 64

// kinds is how many pods of an end differ in labels or ports, as those of every StatefulSet do.
func (sc *uiScene) kinds(name string) int {
	t, err := sc.target(name)
	if err != nil {
		return 1 // explain says why
	}
	return len(t.each())
}

// sampled names an end of a sample.
func sampled(u *reach.Unit, k cluster.Key) string {
	if k == (cluster.Key{}) {
		return u.Name
	}
	return "pod/" + k.String()
}

// maxWays is how many paths are explained of what a user wrote: those of a Service lead to each pod.
const maxWays = 512

// bounded is the report of so many paths at most.
func (sc *uiScene) bounded(ctx context.Context, src, dst string) (*flowReport, error) {
	ways, err := sc.ways(ctx, src, dst, maxWays)
	if err != nil {
		return nil, err
	}
	answers, err := sc.judge(ctx, ways)
	if err != nil {
		return nil, err
	}
	return flowReportOf(answers), nil
}

func (sc *uiScene) explained(ctx context.Context, src, dst string) (any, error) {
	r, err := sc.bounded(ctx, src, dst)
	if err != nil {
		return nil, err
	}
	return explainValue{Title: logging.Plain(src + " to " + dst), Allowed: r.Allowed, Text: plainLines(r.String())}, nil
}

// withPort writes a destination as the command line has it.
func withPort(dst string, p matrix.Port) string {
	if a, err := netip.ParseAddr(dst); err == nil && a.Is6() {
		dst = "[" + dst + "]"
	}
	if p.Number == 0 {
		return dst + ":icmp"
	}
	return fmt.Sprintf("%s:%d/%s", dst, p.Number, p.Protocol)
}

// plainLines is a text without characters that do not print.
func plainLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = logging.Plain(lines[i])
	}
	return strings.Join(lines, "\n")
}

// maxIsolations is how many pods of a workload are described.
const maxIsolations = 10

// endOf answers what applies to a pod, or to the pods of a workload that differ.
func (sc *uiScene) endOf(_ context.Context, q url.Values) (any, error) {
	t, err := sc.target(q.Get("name"))
	if err != nil {
		return nil, err
	}
	if len(t.pods) == 0 {
		return nil, fmt.Errorf("%s is no pod: no policy applies to it", t.name)
	}
	text := ""
	kinds := t.each()
	for _, k := range kinds[:min(len(kinds), maxIsolations)] {
		i, err := sc.answers.Isolation(k.pods[0].Key)
		if err != nil {
			return nil, err
		}
		text += i.String()
	}
	if more := len(t.pods) - min(len(kinds), maxIsolations); more > 0 {
		text += fmt.Sprintf("\nand %d more pods of %s\n", more, t.name)
	}
	return explainValue{Title: logging.Plain(t.name), Text: plainLines(text)}, nil
}

// foundValue is something whose name was searched for.
type foundValue struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Namespace is to be opened, and ID to be chosen, to see it in the graph.
	Namespace string `json:"namespace,omitempty"`
	ID        string `json:"id,omitempty"`
}

// maxFound is how many things are found.
const maxFound = 20

// searchOf answers what has a text in its name: namespaces first, then workloads, policies, pods.
func (sc *uiScene) searchOf(_ context.Context, q url.Values) (any, error) {
	text := strings.ToLower(strings.TrimSpace(q.Get("q")))
	var lists [4][]foundValue
	namespace := ""
	has := func(name string) bool { return text != "" && strings.Contains(strings.ToLower(name), text) }
	add := func(i int, f foundValue) {
		if len(lists[i]) < maxFound {
			lists[i] = append(lists[i], f)
		}
	}
	for _, u := range sc.reach.Units() {
		id := kindWorkload + ":" + u.Name
		if u.Namespace == "" {
			id = kindHost + ":" + u.Name
		} else if u.Namespace != namespace && has(u.Namespace) {
			add(0, foundValue{Kind: kindNamespace, Name: u.Namespace, ID: kindNamespace + ":" + u.Namespace})
		}
		if namespace = u.Namespace; has(u.Name) {
			add(1, foundValue{Kind: strings.SplitN(id, ":", 2)[0], Name: u.Name, Namespace: u.Namespace, ID: id})
		}
		for _, p := range u.Pods {
			if name := p.String(); name != u.Name && has(name) {
				add(3, foundValue{Kind: "pod", Name: name, Namespace: u.Namespace, ID: id})
			}
		}
	}
	for _, p := range sc.snap.Policies {
		if has(p.Key.String()) {
			add(2, foundValue{Kind: "policy", Name: p.Key.String()})
		}
	}
	all := slices.Concat(lists[:]...)
	return struct {
		Found []foundValue `json:"found"`
		More  bool         `json:"more"`
	}{append([]foundValue{}, all[:min(len(all), maxFound)]...), len(all) > maxFound}, nil
}
