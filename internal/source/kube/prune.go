// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// prunedPod is a pod that is decoded from protobuf with those fields only that
// package convert reads. A pod has two kilobytes on the wire and becomes five or
// ten of small objects; what is needed is a tenth. The decoding itself is
// upstream's: the message is shortened before. From JSON it is a whole pod.
type prunedPod struct{ corev1.Pod }

// Reset is called before Unmarshal.
func (p *prunedPod) Reset() { *p = prunedPod{} }

// Unmarshal decodes a pod's message.
func (p *prunedPod) Unmarshal(message []byte) error {
	short, err := prune(make([]byte, 0, 512), message, podFields)
	if err != nil {
		return fmt.Errorf("shortening a pod: %w", err)
	}
	return p.Pod.Unmarshal(short)
}

// prunedNode is a Node that is decoded with those fields only that package convert
// reads. Its status is written every few minutes with nothing new but times, ten
// kilobytes of conditions and images each.
type prunedNode struct{ corev1.Node }

// Reset is called before Unmarshal.
func (n *prunedNode) Reset() { *n = prunedNode{} }

// Unmarshal decodes a node's message.
func (n *prunedNode) Unmarshal(message []byte) error {
	short, err := prune(make([]byte, 0, 256), message, nodeFields)
	if err != nil {
		return fmt.Errorf("shortening a node: %w", err)
	}
	return n.Node.Unmarshal(short)
}

// bare returns the object as the API has it.
func bare(obj any) any {
	switch o := obj.(type) {
	case *prunedPod:
		return &o.Pod
	case *prunedNode:
		return &o.Node
	}
	return obj
}

// kept says what stays of a message's field: what wanted accepts, or the fields
// that inner knows, or all of it.
type kept struct {
	inner  func(protowire.Number) (kept, bool)
	wanted func(value []byte) bool
}

// The fields that stay, by their numbers in the API's protobuf definitions.
func podFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1:
		return kept{inner: metadataFields}, true
	case 2:
		return kept{inner: specFields}, true
	case 3:
		return kept{inner: statusFields}, true
	}
	return kept{}, false
}

func nodeFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1:
		return kept{inner: nodeMetadataFields}, true
	case 2:
		return kept{inner: nodeSpecFields}, true
	case 3:
		return kept{inner: func(n protowire.Number) (kept, bool) { return kept{}, n == 5 }}, true // addresses
	}
	return kept{}, false
}

func nodeMetadataFields(n protowire.Number) (kept, bool) {
	if n == 11 { // labels
		return kept{wanted: holds(corev1.LabelTopologyZone)}, true
	}
	return metadataFields(n)
}

func nodeSpecFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1, 7: // podCIDR, podCIDRs
		return kept{}, true
	case 5: // taints
		return kept{wanted: holds(convert.TaintToBeDeleted)}, true
	}
	return kept{}, false
}

// holds returns what accepts a message that may have this text as its key: an entry of a map, a taint.
func holds(text string) func(message []byte) bool {
	return func(message []byte) bool { return bytes.Contains(message, []byte(text)) }
}

func metadataFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1, 3, 5, 6, 9, 11: // name, namespace, uid, resourceVersion, deletionTimestamp, labels
		return kept{}, true
	case 12:
		return kept{wanted: knownAnnotation}, true
	}
	return kept{}, false
}

func specFields(n protowire.Number) (kept, bool) {
	switch n {
	case 2, 20: // containers, initContainers
		return kept{inner: containerFields}, true
	case 10, 11: // nodeName, hostNetwork
		return kept{}, true
	}
	return kept{}, false
}

func containerFields(n protowire.Number) (kept, bool) { return kept{}, n == 6 } // ports

func statusFields(n protowire.Number) (kept, bool) {
	return kept{}, n == 1 || n == 6 || n == 12 // phase, podIP, podIPs
}

// knownAnnotation reports whether an annotation may be one that podwall reads.
func knownAnnotation(entry []byte) bool {
	return bytes.Contains(entry, []byte(corev1.MirrorPodAnnotationKey)) || bytes.Contains(entry,
		[]byte(metav1.InitialEventsAnnotationKey)) ||
		bytes.Contains(entry, []byte(cluster.ExtraAnnotation))
}

// prune appends the message without the fields that are not kept.
func prune(to, message []byte, fields func(protowire.Number) (kept, bool)) ([]byte, error) {
	for len(message) > 0 {
		number, kind, head := protowire.ConsumeTag(message)
		if head < 0 {
			return nil, protowire.ParseError(head)
		}
		size := protowire.ConsumeFieldValue(number, kind, message[head:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		field := message[:head+size]
		message = message[head+size:]
		k, ok := fields(number)
		if !ok {
			continue
		}
		value, nested := protowire.ConsumeBytes(field[head:])
		switch {
		case kind != protowire.BytesType || nested < 0 || k.inner == nil && k.wanted == nil:
			to = append(to, field...)
		case k.wanted != nil:
			if k.wanted(value) {
				to = append(to, field...)
			}
		default:
			short, err := prune(nil, value, k.inner)
			if err != nil {
				return nil, err
			}
			to = protowire.AppendBytes(protowire.AppendTag(to, number, kind), short)
		}
	}
	return to, nil
}
