// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
)

// addPeer proposes an item for the peer next to an item of from or to. A pod is proposed by
// its labels: its address may be another pod's tomorrow.
func addPeer(field string, p *cluster.Policy, q question) string {
	peer := q.peer.pod
	switch {
	case peer == nil:
		return line("add {ipBlock: {cidr: %s}} next to %s", single(q), field)
	case len(peer.Labels) == 0: // its item would mean every pod of the namespace
		return line("give %s a label and add an item for it next to %s", peer.Key, field)
	}
	return line("add %s next to %s", itemFor(p, peer), field)
}

// single is the peer's address as a block.
func single(q question) string {
	block := line("%s/%d", q.peer.addr, q.peer.addr.BitLen())
	if strings.HasPrefix(block, ":") { // YAML reads a colon inside braces as the end of a key
		return strconv.Quote(block)
	}
	return block
}

// itemFor is an item of from or to that means the peer's labels in its namespace. The
// API server gives each namespace the label with its name.
func itemFor(p *cluster.Policy, peer *cluster.Pod) string {
	var pairs []string
	for _, e := range lasting(peer.Labels) {
		pairs = append(pairs, scalar(e.Key)+": "+scalar(e.Value))
	}
	pods := line("podSelector: {matchLabels: {%s}}", strings.Join(pairs, ", "))
	if peer.Key.Namespace == p.Key.Namespace {
		return "{" + pods + "}"
	}
	return line("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}, %s}",
		scalar(peer.Key.Namespace), pods)
}

// lasting returns the labels without those that controllers set for one revision or one
// pod, or all labels if there are no others.
func lasting(l cluster.Labels) cluster.Labels {
	kept := slices.DeleteFunc(slices.Clone(l), func(e cluster.Label) bool {
		return slices.Contains(revisionLabels(), e.Key) || strings.HasPrefix(e.Key, "batch.kubernetes.io/")
	})
	if len(kept) == 0 {
		return l
	}
	return kept
}

func revisionLabels() []string {
	return []string{"pod-template-hash", "controller-revision-hash", "pod-template-generation",
		"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "job-name", "controller-uid"}
}

// scalar writes a string so that YAML reads this string. A text that starts with a letter
// is no number and no date; the words are those that YAML 1.1 reads as something else.
func scalar(s string) string {
	if plainScalar.MatchString(s) && !slices.Contains(yamlWords(), strings.ToLower(s)) {
		return s
	}
	return strconv.Quote(s)
}

var plainScalar = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._/-]*$`)

func yamlWords() []string {
	return []string{"y", "yes", "n", "no", "on", "off", "true", "false", "null"}
}
