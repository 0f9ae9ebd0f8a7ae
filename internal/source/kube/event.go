// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// speakers is how many nodes may write about one policy, one after another.
const speakers = 3

// turnOf returns which turn a node has to write about a policy: 0 for the first, -1
// for none. The nodes with the lowest hashes have one, so that all agents agree
// without a word, and each node has as many policies as another.
func turnOf(node string, policy cluster.Key, nodes []string) int {
	if !slices.Contains(nodes, node) {
		return -1
	}
	own, before := rankHash(node, policy), 0
	for _, other := range nodes {
		if h := rankHash(other, policy); other != node && bytes.Compare(h[:], own[:]) < 0 {
			before++
		}
	}
	if before >= speakers {
		return -1
	}
	return before
}

func rankHash(node string, policy cluster.Key) [sha256.Size]byte {
	return sha256.Sum256([]byte(policy.String() + "\x00" + node))
}

// The reasons of Events. An error means that a part of the policy matches nothing.
const (
	reasonError   = "PolicyError"
	reasonWarning = "PolicyWarning"
)

const (
	maxEventText = 1024 // bytes, as the API has it for notes
	maxName      = 253
)

// eventAbout returns the Event with these findings about a policy. Its name is a
// function of the policy's version and of what is found, so that of several nodes, and
// of an agent before and after a restart, one writes it.
func eventAbout(p *cluster.Policy, findings []cluster.Diagnostic, node string, now time.Time) *corev1.Event {
	sorted := slices.Clone(findings)
	slices.SortStableFunc(sorted, func(a, b cluster.Diagnostic) int { return cmp.Compare(b.Severity, a.Severity) })
	reason := reasonWarning
	if len(sorted) > 0 && sorted[0].Severity == cluster.Error {
		reason = reasonError
	}
	text, at := eventText(sorted), metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Key.Namespace, Name: eventName(p, text)},
		InvolvedObject: corev1.ObjectReference{APIVersion: "networking.k8s.io/v1", Kind: convert.KindPolicy,
			Namespace: p.Key.Namespace, Name: p.Key.Name, UID: types.UID(p.UID), ResourceVersion: p.Version},
		Type: corev1.EventTypeWarning, Reason: reason, Message: text,
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: "podwall-agent", Host: node},
		ReportingController: "podwall.io/agent", ReportingInstance: node,
	}
}

func eventName(p *cluster.Policy, text string) string {
	const digits = 16
	sum := sha256.Sum256([]byte(p.UID + "\x00" + p.Version + "\x00" + text))
	name := p.Key.Name[:min(len(p.Key.Name), maxName-1-digits)]
	return strings.TrimRight(name, ".-") + "." + hex.EncodeToString(sum[:])[:digits]
}

// eventText writes as many findings as there is room for, and how many more there are.
func eventText(findings []cluster.Diagnostic) string {
	const more = 32 // bytes for the last part
	var b strings.Builder
	for i, d := range findings {
		one := findingText(d)
		if i > 0 {
			one = " | " + one
		}
		if i > 0 && b.Len()+len(one) > maxEventText-more {
			fmt.Fprintf(&b, " | and %d more", len(findings)-i)
			break
		}
		b.WriteString(one)
	}
	return shorten(b.String(), maxEventText)
}

func findingText(d cluster.Diagnostic) string {
	text := d.Message
	if d.Field != "" {
		text = d.Field + ": " + text
	}
	if d.Cure != "" {
		text += "; " + d.Cure
	}
	return shorten(text, maxEventText-64)
}

// shorten cuts a text at a character.
func shorten(s string, limit int) string {
	const dots = "…"
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-len(dots)], "") + dots
}
