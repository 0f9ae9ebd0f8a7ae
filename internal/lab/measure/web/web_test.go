// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
)

const abReport = `Server Software:        nginx/1.22.1
Document Length:        615 bytes

Concurrency Level:      10
Time taken for tests:   0.500 seconds
Complete requests:      5000
Failed requests:        0
Requests per second:    10000.25 [#/sec] (mean)
Time per request:       1.000 [ms] (mean)
`

func TestTheReportOfABIsRead(t *testing.T) {
	got, err := readAB(abReport)
	if err != nil || got.requests != 5000 || got.perSecond != 10000.25 {
		t.Errorf("read %+v (%v), want 5000 requests at 10000.25/s", got, err)
	}
}

func TestARunOfABWithABadAnswerIsWorthless(t *testing.T) {
	tests := map[string]string{
		"failed":      strings.Replace(abReport, "requests:        0", "requests:        3", 1),
		"an error":    abReport + "Non-2xx responses:      5000\n",
		"none at all": strings.Replace(abReport, "requests:      5000", "requests:      0", 1),
		"no report":   "This is ApacheBench\n",
		"no rate":     strings.Replace(abReport, "10000.25", "fast", 1),
	}
	for name, text := range tests {
		if got, err := readAB(text); err == nil {
			t.Errorf("%s: read %+v and no error", name, got)
		}
	}
}

func TestTheBusyTimeOfTheMachineLeavesIdleAndStolenTimeOut(t *testing.T) {
	//                     user nice system idle iowait irq softirq steal guest
	got, err := busy("cpu  100 20 30 4000 500 6 7 800 50 0")
	if want := 1630 * time.Millisecond; err != nil || got != want {
		t.Errorf("busy for %s (%v), want %s", got, err, want)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu 1 2 x 4 5 6 7 8"} {
		if _, err := busy(bad); err == nil {
			t.Errorf("%q is read without an error", bad)
		}
	}
}

func TestPodsAreSpreadOverTheNodes(t *testing.T) {
	const services = 1000
	list := idlePods(services, 8000)
	onNode := map[int]int{}
	addrs := map[netip.Addr]bool{servers()[0].addr: true, servers()[1].addr: true}
	nodesOf := make([]map[int]bool, services)
	for _, p := range list {
		if addrs[p.addr] || p.addr.As4()[2] != byte(p.node) || p.addr.As4()[3] < 3 {
			t.Errorf("%s on node %d has address %s", p.name, p.node, p.addr)
		}
		addrs[p.addr] = true
		onNode[p.node]++
		if nodesOf[p.service] == nil {
			nodesOf[p.service] = map[int]bool{}
		}
		nodesOf[p.service][p.node] = true
	}
	for n := range nodes {
		if onNode[n+1] != 80 {
			t.Errorf("node %d has %d pods, want 80", n+1, onNode[n+1])
		}
	}
	for i, n := range nodesOf {
		if len(n) != 8 {
			t.Errorf("service %d has pods on %d nodes, want 8", i, len(n))
		}
	}
	same := func(a, b pod) bool { return a == b }
	if !slices.EqualFunc(idlePods(services, 2000), list[:2000], same) {
		t.Error("2,000 pods are not the first of 8,000: pods would change their address when the cluster grows")
	}
	if most := idlePods(services, maxPods); most[len(most)-1].addr.As4()[3] > 254 {
		t.Errorf("the last of %d pods has address %s", maxPods, most[len(most)-1].addr)
	}
}

// Once as slow and at twice the cost: both ratios are 2.
func TestARatioAboveOneIsLoss(t *testing.T) {
	l := newLevel(2000, []setting{{name: noAgent}, {name: podwall, on: (&stage{}).podwall}, {name: noAgentAgain}})
	round := func(rate float64, cpu time.Duration) []sample {
		return []sample{{requests: 100, perSecond: rate, asking: cpu, serving: cpu, machine: 3 * cpu}}
	}
	for range 2 {
		l.add(noAgent, round(1000, time.Millisecond))
		l.add(podwall, round(500, 2*time.Millisecond))
		l.add(noAgentAgain, round(1000, time.Millisecond))
	}
	got := map[string]float64{}
	for _, row := range l.rows([]int{10}) {
		if row.Ratio != nil {
			got[row.Section+": "+row.Name] = row.Ratio.Median
		}
		if row.Bar != nil && (*row.Met || row.Name != podwall) {
			t.Errorf("%s, %s: its bar is met: %t", row.Section, row.Name, *row.Met)
		}
	}
	want := map[string]float64{}
	for _, section := range []string{"QPS, 2,000 pods, concurrency 10 (ratio: loss)", "CPU of nginx and ab, 2,000 pods, concurrency 10",
		"CPU of nginx and ab, 2,000 pods, all requests", "CPU of the whole machine, 2,000 pods, all requests"} {
		want[section+": "+podwall], want[section+": "+noAgentAgain] = 2, 1
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
	p := l.plot([]int{10})
	if p.Name != "web-2000" || len(p.Lines) != 3 || p.Lines[2].Points[0] != (bench.Point{X: 10, Y: bench.Summarize([]float64{500, 500})}) {
		t.Errorf("plot %+v", p)
	}
}

func TestNobodyIsAlwaysAfterTheSame(t *testing.T) {
	for n := 2; n < 6; n++ {
		first, after := map[int]int{}, map[[2]int]int{}
		last := -1
		for round := range 2 * n {
			list := order(n, round)
			if sorted := slices.Sorted(slices.Values(list)); len(slices.Compact(sorted)) != n {
				t.Errorf("round %d of %d settings: %v", round, n, list)
			}
			first[list[0]]++
			for _, i := range list {
				if last >= 0 && last != i {
					after[[2]int{last, i}]++
				}
				last = i
			}
		}
		for i := range n {
			if first[i] != 2 {
				t.Errorf("%d of %d settings is the first %d times, want 2", i, n, first[i])
			}
			if next := (i + 1) % n; after[[2]int{i, next}] == 0 || after[[2]int{next, i}] == 0 {
				t.Errorf("%d settings: %d and %d follow each other in one order only: %v", n, i, next, after)
			}
		}
	}
}

func TestThePolicyIsTheOneOfTheSeed(t *testing.T) {
	var ports []int
	for _, rule := range policy().Spec.Ingress {
		ports = append(ports, rule.Ports[0].Port.IntValue())
		if rule.From[0].IPBlock.CIDR != "14.215.0.0/16" {
			t.Errorf("a rule for %s", rule.From[0].IPBlock.CIDR)
		}
	}
	if diff := cmp.Diff([]int{9090, 8080, 80}, ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	allowed := netip.MustParsePrefix("14.215.0.0/16")
	if !allowed.Contains(client().addr) || allowed.Contains(stranger().addr) {
		t.Errorf("the client is %s and the stranger %s", client().addr, stranger().addr)
	}
}

func TestWhatCannotBeMeasuredIsRefused(t *testing.T) {
	good := func() Config {
		return Config{Wiring: lab.Routed, Services: 10, Pods: []int{20, 40}, Concurrency: []int{1}, Requests: 1, Limit: time.Second, Rounds: 1}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"wiring":        func(c *Config) { c.Wiring = lab.CNIPtp },
		"no rounds":     func(c *Config) { c.Rounds = 0 },
		"odd pods":      func(c *Config) { c.Pods = []int{25} },
		"shrinking":     func(c *Config) { c.Pods = []int{40, 20} },
		"too many pods": func(c *Config) { c.Pods = []int{maxPods + 10} },
		"concurrency":   func(c *Config) { c.Concurrency = []int{0} },
		"short":         func(c *Config) { c.Limit = time.Millisecond },
		"a base":        func(c *Config) { c.Peers = []Peer{{noAgentAgain, "x"}} },
		"twice":         func(c *Config) { c.Peers = []Peer{{"p", "x"}, {"p", "y"}} },
		"no command":    func(c *Config) { c.Peers = []Peer{{"p", ""}} },
	} {
		c := good()
		spoil(&c)
		if c.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestThePageIsAsLongAsThatOfAFreshNginx(t *testing.T) {
	if n := len(page()); n != 615 {
		t.Errorf("%d bytes, want 615", n)
	}
}

func TestPodsHaveTheStatusThatTheirKubeletWrites(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00:172:30::11")}
	s := servers()[0].object(host).Status
	if s.HostIP != "172.30.0.11" || len(s.HostIPs) != 2 || len(s.Conditions) == 0 || len(s.ContainerStatuses) != 1 {
		t.Errorf("%+v", s)
	}
}
