// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab"
)

// odd is a policy about which something is found.
const odd = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: odd, namespace: %s}
spec:
  podSelector: {matchLabels: {app: none}}
  ingress: [{from: [{ipBlock: {cidr: 10.1.2.3/8}}]}]
`

func (w *world) events(namespace string) []corev1.Event {
	w.t.Helper()
	list, err := w.api.CoreV1().Events(namespace).List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// What two agents find about a policy its author reads in one Event. A tenant who edits
// such a policy all the time gets few, and the policies of others have theirs.
func TestAuthorsReadWhatIsFoundAboutTheirPolicies(t *testing.T) {
	w := newWorld(t, lab.Routed, "node1", "node2")
	w.populate()
	a, b := w.agent("node1").ready(), w.agent("node2").ready()
	w.createPolicy(w.parsePolicy(fmt.Appendf(nil, odd, "nsa")))
	for _, one := range []*agent{a, b} {
		one.await("the finding in the log", func() bool { return one.says("finding about an object") })
	}
	a.await("the Event", func() bool { return len(w.events("nsa")) > 0 })
	e := w.events("nsa")[0]
	if o := e.InvolvedObject; o.Kind != "NetworkPolicy" || o.Name != "odd" || o.UID == "" || !strings.Contains(e.Message, "10.0.0.0/8") ||
		e.Reason != "PolicyWarning" {
		t.Errorf("the Event is %+v", e)
	}

	began := time.Now()
	for i := range 50 { // ten a second, on a machine that is not busy
		w.editPolicy("nsa/odd", func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress[0].From[0].IPBlock.CIDR = fmt.Sprintf("10.1.2.%d/8", i+4)
		})
		time.Sleep(100 * time.Millisecond)
	}
	w.createPolicy(w.parsePolicy(fmt.Appendf(nil, odd, "nsb")))
	a.await("the Event of another namespace", func() bool { return len(w.events("nsb")) > 0 })
	if n, limit := len(w.events("nsa")), 2*(2+int(time.Since(began)/time.Minute)); n > limit { // of each of the two nodes one a minute
		t.Errorf("%d Events about a policy that was edited 50 times, want %d at most", n, limit)
	}
}
