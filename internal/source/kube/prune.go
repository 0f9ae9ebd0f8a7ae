// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/kuberouter/annotations"
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

// prunedService and prunedSlice are likewise. Those who write them, and when, is noted
// in managedFields, which are larger than the rest; a slice has for each endpoint also
// which pod it is and in which zone.
type (
	prunedService struct{ corev1.Service }
	prunedSlice   struct{ discoveryv1.EndpointSlice }
)

// Reset is called before Unmarshal.
func (s *prunedService) Reset() { *s = prunedService{} }

// Reset is called before Unmarshal.
func (s *prunedSlice) Reset() { *s = prunedSlice{} }

// Unmarshal decodes a Service's message.
func (s *prunedService) Unmarshal(message []byte) error {
	short, err := prune(make([]byte, 0, 512), message, serviceFields)
	if err != nil {
		return fmt.Errorf("shortening a Service: %w", err)
	}
	return s.Service.Unmarshal(short)
}

// Unmarshal decodes a slice's message.
func (s *prunedSlice) Unmarshal(message []byte) error {
	short, err := prune(make([]byte, 0, 1024), message, sliceFields)
	if err != nil {
		return fmt.Errorf("shortening an EndpointSlice: %w", err)
	}
	return s.EndpointSlice.Unmarshal(short)
}

// bare returns the object as the API has it.
func bare(obj any) any {
	switch o := obj.(type) {
	case *prunedPod:
		return &o.Pod
	case *prunedNode:
		return &o.Node
	case *prunedService:
		return &o.Service
	case *prunedSlice:
		return &o.EndpointSlice
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
		return kept{wanted: nodeLabel}, true
	}
	return metadataFields(n)
}

func nodeSpecFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1, 7: // podCIDR, podCIDRs
		return kept{}, true
	case 5: // taints
		return kept{wanted: nodeTaint}, true
	}
	return kept{}, false
}

func serviceFields(n protowire.Number) (kept, bool) {
	if n == 1 {
		return kept{inner: serviceMetadataFields}, true
	}
	return kept{}, n == 2 || n == 3 // spec, status
}

func sliceFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1:
		return kept{inner: serviceMetadataFields}, true
	case 2:
		return kept{inner: endpointFields}, true
	}
	return kept{}, n == 3 || n == 4 // ports, addressType
}

func serviceMetadataFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1, 3, 6, 8: // name, namespace, resourceVersion, creationTimestamp
		return kept{}, true
	case 11:
		return kept{wanted: serviceLabel}, true
	case 12:
		return kept{wanted: serviceAnnotation}, true
	}
	return kept{}, false
}

func endpointFields(n protowire.Number) (kept, bool) {
	return kept{}, n == 1 || n == 2 || n == 6 || n == 8 // addresses, conditions, nodeName, hints
}

// What follows reports whether a label, an annotation or a taint may be one that podwall reads.

func podAnnotation(entry []byte) bool {
	return holds(entry, corev1.MirrorPodAnnotationKey, metav1.InitialEventsAnnotationKey, cluster.ExtraAnnotation)
}

func nodeLabel(entry []byte) bool { return holds(entry, corev1.LabelTopologyZone) }

func nodeTaint(taint []byte) bool { return holds(taint, convert.TaintToBeDeleted) }

func serviceLabel(entry []byte) bool {
	return holds(entry, discoveryv1.LabelServiceName, corev1.IsHeadlessService, convert.LabelProxyName)
}

func serviceAnnotation(entry []byte) bool {
	return holds(entry, corev1.EndpointsLastChangeTriggerTime, metav1.InitialEventsAnnotationKey, annotations.Prefix)
}

func holds(message []byte, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { return bytes.Contains(message, []byte(key)) })
}

func metadataFields(n protowire.Number) (kept, bool) {
	switch n {
	case 1, 3, 5, 6, 9, 11: // name, namespace, uid, resourceVersion, deletionTimestamp, labels
		return kept{}, true
	case 12:
		return kept{wanted: podAnnotation}, true
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
