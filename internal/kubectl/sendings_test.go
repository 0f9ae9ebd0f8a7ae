// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
)

// clusterScene is testdata/cluster.yaml.
func clusterScene(t *testing.T) *scene {
	t.Helper()
	s := newSource(Streams{In: strings.NewReader("")})
	s.from.Paths = []string{"testdata/cluster.yaml"}
	sc, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sc
}

// Every pod of a Service is asked, and the Service's own address. Where nodes translate the source, only
// the way through them says what the pods see.
func TestWhereAProbeSends(t *testing.T) {
	sc := clusterScene(t)
	for question, want := range map[string]string{
		"shop/client shop/web-6bd7-x1": "shop/web-6bd7-x1 tcp/10.244.1.10:8080 allowed",
		"shop/client shop/web":         "shop/web-6bd7-x1 tcp/10.244.1.10:8080 allowed",
		"shop/client svc/shop/web": "shop/web-6bd7-x1 tcp/10.244.1.10:8080 allowed, Service shop/web tcp/10.0.0.80:80 allowed, " +
			"shop/web-6bd7-x2 tcp/10.244.2.10:8080 allowed",
		// So does the external address, which that node resolves, too.
		"shop/client 198.51.100.80:80": "shop/web-6bd7-x1 tcp/10.244.1.10:8080 allowed, " +
			"Service shop/web tcp/198.51.100.80:80 allowed and denied",
		"default/job 10.244.1.10:53/udp": "shop/web-6bd7-x1 udp/10.244.1.10:53 denied",
		"default/job svc/shop/web": "shop/web-6bd7-x1 tcp/10.244.1.10:8080 denied, Service shop/web tcp/10.0.0.80:80 denied, " +
			"shop/web-6bd7-x2 tcp/10.244.2.10:8080 denied",
		// From node1 to node1 the pod of the other node meets node1, which is not allowed in.
		"shop/client node/node1:30080": "shop/web-6bd7-x1 tcp/10.244.1.10:8080 allowed, " +
			"node/node1 tcp/192.168.77.1:30080 allowed and denied",
		"10.244.1.11 192.0.2.7:443": "192.0.2.7 tcp/192.0.2.7:443 allowed",
		"shop/client node/node2:22": "node/node2 tcp/192.168.77.2:22 allowed",
	} {
		src, dst, _ := strings.Cut(question, " ")
		ways, err := sc.ways(t.Context(), src, dst, 0)
		if err != nil {
			t.Errorf("%s: %v", question, err)
			continue
		}
		pod, list, err := sc.sendings(answered(t, sc, ways))
		if err != nil {
			t.Errorf("%s: %v", question, err)
			continue
		}
		var got []string
		for _, s := range list {
			verdict := map[bool]string{true: "allowed"}[s.allowed] + map[bool]string{true: " and "}[s.allowed && s.denied] +
				map[bool]string{true: "denied"}[s.denied]
			got = append(got, fmt.Sprintf("%s %s %s", s.destination, s.target, verdict))
			if s.source != pod.Key.String() {
				t.Errorf("%s: %s is not the source %s", question, pod.Key, s.source)
			}
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("%s:\n%s, want\n%s", question, text, want)
		}
	}
}

func answered(t *testing.T, sc *scene, ways []path) []answer {
	t.Helper()
	answers, err := sc.each(t.Context(), ways)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func TestWhatNoProbeIsSentFor(t *testing.T) {
	sc := clusterScene(t)
	for question, want := range map[string]string{
		"outside shop/web":            "--probe sends from a pod of the cluster, and 203.0.113.10 is none",
		"node/node1 shop/web":         "node/node1 is none: name a pod",
		"kubelet shop/web":            "node/node1 is none: name a pod",
		"shop/client shop/web:icmp":   "--probe sends TCP, UDP and SCTP, not 1",
		"shop/client 192.0.2.7:80 x2": "the source means several that differ, such as shop/client and default/job: name one",
		"shop/client 192.0.2.7:80 33": "these are 33 packets, and --probe sends 32 at most",
	} {
		words := strings.Fields(question)
		ways, err := sc.ways(t.Context(), words[0], words[1], 0)
		if err != nil {
			t.Fatal(err)
		}
		switch words = words[2:]; {
		case slices.Equal(words, []string{"x2"}):
			other, err := sc.ways(t.Context(), "default/job", "192.0.2.7:80", 0)
			if err != nil {
				t.Fatal(err)
			}
			ways = append(ways, other...)
		case slices.Equal(words, []string{"33"}):
			for range 32 {
				way := ways[len(ways)-1]
				way.egress.Port++
				way.ingress = way.egress
				ways = append(ways, way)
			}
		}
		if _, _, err := sc.sendings(answered(t, sc, ways)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", question, err, want)
		}
	}
}

// Each answer has its meaning, and only what proves something can differ from the explanation.
func TestAnswersAreComparedWithTheExplanation(t *testing.T) {
	const allowed, denied, both = 1, 2, 3
	tests := []struct {
		protocol inet.Protocol
		answer   connect.Outcome
		explains int
		want     string
		differs  bool
	}{
		{inet.TCP, connect.Connected, allowed, "connected: the packet arrived, as explained", false},
		{inet.TCP, connect.Connected, denied, "connected: the packet arrived, NOT as explained", true},
		{inet.TCP, connect.Connected, both, "connected: the packet arrived, as explained for some of its pods", false},
		{inet.TCP, connect.Refused, allowed, "refused: the packet arrived, as explained", false},
		{inet.TCP, connect.Silent, denied, "no answer in 5 s: the packet was dropped, as explained", false},
		{inet.TCP, connect.Silent, allowed, "no answer in 5 s: the packet was dropped, NOT as explained", true},
		{inet.SCTP, connect.Silent, both, "no answer in 5 s: the packet was dropped, as explained for some of its pods", false},
		{inet.TCP, connect.Rejected, allowed, "rejected by ICMP: the packet was dropped, NOT as explained", true},
		{inet.UDP, connect.Answered, denied, "answered: the packet arrived, NOT as explained", true},
		{inet.UDP, connect.Silent, denied, "no answer in 5 s: unknown, a UDP server need not answer", false},
		{inet.UDP, connect.Silent, allowed, "no answer in 5 s: unknown, a UDP server need not answer", false},
		{inet.TCP, connect.Unreachable, allowed, "no route to it: unknown what policies do", false},
		{inet.SCTP, connect.Unsupported, denied, "the kernel of the node does not have this protocol: unknown", false},
		{inet.TCP, connect.Failed, denied, "it could not be sent (not permitted): unknown", false},
	}
	for _, tt := range tests {
		s := sending{source: "shop/client", destination: "shop/web", allowed: tt.explains&allowed != 0, denied: tt.explains&denied != 0,
			target: connect.Target{Protocol: tt.protocol, To: netip.MustParseAddrPort("[fd00::1]:80")}}
		p := compare([]sending{s}, connect.Report{Seconds: 5, Answers: []connect.Outcome{tt.answer}, Detail: "not permitted"})
		want := fmt.Sprintf("probe: shop/client to shop/web, %s [fd00::1]:80: %s", tt.protocol, tt.want)
		if p.String() != want || p.Differs != tt.differs || p.Packets[0].Family != "IPv6" {
			t.Errorf("%s, %s: %+v, want %q", tt.protocol, tt.answer, p, want)
		}
		if unknown := tt.answer.Verdict(tt.protocol) == connect.Unknown; p.unknown() != unknown || unknown && p.Differs {
			t.Errorf("%s, %s: unknown is %t", tt.protocol, tt.answer, p.unknown())
		}
	}
}
