// SPDX-License-Identifier: Apache-2.0

package service

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/oracle"
)

// scene is a random cluster with a node and packets.
type scene struct {
	snap    *cluster.ServiceSnapshot
	set     Settings
	packets []gen.ServicePacket
}

// noticed reports whether the oracle, asked about the scene, would reject programs that were made of
// another one.
func (s scene) noticed(other scene) bool {
	m, _ := Resolve(other.snap, other.set)
	for _, p := range s.packets {
		if !same(judge(m, p), oracle.Judge(s.snap, oracle.Settings(s.set), oracle.Packet(p))) {
			return true
		}
	}
	return false
}

// clone copies the scene as deeply as the changes below need.
func (s scene) clone() scene {
	snap := &cluster.ServiceSnapshot{}
	for _, v := range s.snap.Services {
		c := *v
		c.Ports = slices.Clone(v.Ports)
		if v.External != nil {
			x := *v.External
			c.External = &x
		}
		snap.Services = append(snap.Services, &c)
	}
	for _, v := range s.snap.Slices {
		c := *v
		c.Ports, c.Endpoints = slices.Clone(v.Ports), slices.Clone(v.Endpoints)
		for i, e := range c.Endpoints {
			place := *e.Placement
			c.Endpoints[i].Placement = &place
		}
		snap.Slices = append(snap.Slices, &c)
	}
	for _, v := range s.snap.Nodes {
		c := *v
		snap.Nodes = append(snap.Nodes, &c)
	}
	for _, v := range s.snap.Pods {
		c := *v
		snap.Pods = append(snap.Pods, &c)
	}
	return scene{snap, s.set, s.packets}
}

func eachService(change func(*cluster.Service)) func(*scene) {
	return func(s *scene) {
		for _, v := range s.snap.Services {
			change(v)
		}
	}
}

func eachExternal(change func(*cluster.External)) func(*scene) {
	return eachService(func(s *cluster.Service) {
		if s.External != nil {
			change(s.External)
		}
	})
}

func eachPort(change func(*cluster.ServicePort)) func(*scene) {
	return eachService(func(s *cluster.Service) {
		for i := range s.Ports {
			change(&s.Ports[i])
		}
	})
}

func eachSlice(change func(*cluster.EndpointSlice)) func(*scene) {
	return func(s *scene) {
		for _, v := range s.snap.Slices {
			change(v)
		}
	}
}

func eachPlacement(change func(*cluster.Placement)) func(*scene) {
	return eachSlice(func(s *cluster.EndpointSlice) {
		for _, e := range s.Endpoints {
			change(e.Placement)
		}
	})
}

// losses are scenes in which one field has lost its meaning, by type and field.
func losses() map[string]map[string]func(*scene) {
	return map[string]map[string]func(*scene){
		"Service": {
			"Key":           eachService(func(s *cluster.Service) { s.Key.Namespace = "x" }),
			"Created":       eachService(func(s *cluster.Service) { s.Created = -s.Created }),
			"ClusterIPs":    eachService(func(s *cluster.Service) { s.ClusterIPs = s.ClusterIPs[:1] }),
			"Ports":         eachService(func(s *cluster.Service) { s.Ports = s.Ports[:len(s.Ports)-1] }),
			"External":      eachService(func(s *cluster.Service) { s.External = nil }),
			"Affinity":      eachService(func(s *cluster.Service) { s.Affinity = 0 }),
			"InternalLocal": eachService(func(s *cluster.Service) { s.InternalLocal = false }),
			// Who may be chosen is the same: see TestASchedulerIsServedByIPVSAndNamedElsewhere.
			"Scheduler": nil, "SchedulerOptions": nil,
		},
		"External": {
			"IPs":             eachExternal(func(x *cluster.External) { x.IPs = nil }),
			"LoadBalancerIPs": eachExternal(func(x *cluster.External) { x.LoadBalancerIPs = nil }),
			"Restricted":      eachExternal(func(x *cluster.External) { x.Restricted = false }),
			"SourceRanges":    eachExternal(func(x *cluster.External) { x.SourceRanges = nil }),
			"Local":           eachExternal(func(x *cluster.External) { x.Local = false }),
			"HealthPort":      nil, // see checkHealth
		},
		"ServicePort": {
			"Name":     eachPort(func(p *cluster.ServicePort) { p.Name = "" }),
			"Protocol": eachPort(func(p *cluster.ServicePort) { p.Protocol = cluster.TCP }),
			"Port":     eachPort(func(p *cluster.ServicePort) { p.Port = 80 }),
			"NodePort": eachPort(func(p *cluster.ServicePort) { p.NodePort = 0 }),
		},
		"EndpointSlice": {
			"Key":       eachSlice(func(s *cluster.EndpointSlice) { s.Key.Namespace = "a" }),
			"Service":   eachSlice(func(s *cluster.EndpointSlice) { s.Service = "s" }),
			"Ports":     eachSlice(func(s *cluster.EndpointSlice) { s.Ports = s.Ports[:len(s.Ports)/2] }),
			"Endpoints": eachSlice(func(s *cluster.EndpointSlice) { s.Endpoints = s.Endpoints[:len(s.Endpoints)/2] }),
			"Triggered": nil, // for a metric
		},
		"EndpointPort": {
			"Name":     eachEndpointPort(func(p *cluster.EndpointPort) { p.Name = "" }),
			"Protocol": eachEndpointPort(func(p *cluster.EndpointPort) { p.Protocol = cluster.UDP }),
			"Port":     eachEndpointPort(func(p *cluster.EndpointPort) { p.Port = 8080 }),
		},
		"Placement": {
			"Node":        eachPlacement(func(p *cluster.Placement) { p.Node = "" }),
			"NodeHints":   eachPlacement(func(p *cluster.Placement) { p.NodeHints = nil }),
			"ZoneHints":   eachPlacement(func(p *cluster.Placement) { p.ZoneHints = nil }),
			"Ready":       eachPlacement(func(p *cluster.Placement) { p.Ready = true }),
			"Serving":     eachPlacement(func(p *cluster.Placement) { p.Serving = true }),
			"Terminating": eachPlacement(func(p *cluster.Placement) { p.Terminating = true }),
		},
		"Node": {
			"Name":  func(s *scene) { s.eachNode(func(n *cluster.Node) { n.Name = "two" }) },
			"Addrs": func(s *scene) { s.eachNode(func(n *cluster.Node) { n.Addrs = nil }) },
			"Zone":  func(s *scene) { s.eachNode(func(n *cluster.Node) { n.Zone = "" }) },
			// Read by whoever makes the settings, and for load balancers.
			"PodCIDRs": nil, "Leaving": nil,
		},
		"ServiceSnapshot": {
			"Services": func(s *scene) { s.snap.Services = nil }, "Slices": func(s *scene) { s.snap.Slices = nil },
			"Nodes": func(s *scene) { s.snap.Nodes = nil }, "Pods": func(s *scene) { s.snap.Pods = nil },
		},
		"Settings": settingLosses(),
	}
}

func (s *scene) eachNode(change func(*cluster.Node)) {
	for _, n := range s.snap.Nodes {
		change(n)
	}
}

func eachEndpointPort(change func(*cluster.EndpointPort)) func(*scene) {
	return eachSlice(func(s *cluster.EndpointSlice) {
		for i := range s.Ports {
			change(&s.Ports[i])
		}
	})
}

func settingLosses() map[string]func(*scene) {
	return map[string]func(*scene){
		"IPVS":               nil, // as above
		"Node":               func(s *scene) { s.set.Node = "two" },
		"OwnAddresses":       func(s *scene) { s.set.OwnAddresses = nil },
		"APIServer":          func(s *scene) { s.set.APIServer = nil },
		"NodePortAddresses":  func(s *scene) { s.set.NodePortAddresses = nil },
		"ServiceRanges":      func(s *scene) { s.set.ServiceRanges = nil },
		"ClusterPods":        func(s *scene) { s.set.ClusterPods = nil },
		"NodePods":           func(s *scene) { s.set.NodePods = nil },
		"MasqueradeAll":      func(s *scene) { s.set.MasqueradeAll = false },
		"Strict":             func(s *scene) { s.set.Strict = false },
		"ExternalRanges":     func(s *scene) { s.set.ExternalRanges = nil },
		"LoadBalancerRanges": func(s *scene) { s.set.LoadBalancerRanges = nil },
	}
}

// The random clusters and packets would show it if any one field were not read.
func TestEveryFieldIsSeenToMatter(t *testing.T) {
	types := map[string]reflect.Type{"Service": reflect.TypeFor[cluster.Service](), "External": reflect.TypeFor[cluster.External](),
		"ServicePort": reflect.TypeFor[cluster.ServicePort](), "EndpointSlice": reflect.TypeFor[cluster.EndpointSlice](),
		"EndpointPort": reflect.TypeFor[cluster.EndpointPort](), "Placement": reflect.TypeFor[cluster.Placement](),
		"Node": reflect.TypeFor[cluster.Node](), "ServiceSnapshot": reflect.TypeFor[cluster.ServiceSnapshot](),
		"Settings": reflect.TypeFor[Settings]()}
	waiting := map[string]func(*scene){}
	for name, fields := range losses() {
		var want []string
		for f := range types[name].Fields() {
			want = append(want, f.Name)
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
			t.Errorf("%s has the fields %v, the test knows %v", name, want, got)
		}
		for field, lose := range fields {
			if lose != nil {
				waiting[name+"."+field] = lose
			}
		}
	}
	scenes := rapid.Custom(func(t *rapid.T) scene { return scene{world(t).Snapshot(t), settings(t), gen.Packets(t)} })
	for seed := 0; len(waiting) > 0 && seed < 1000; seed++ {
		s := scenes.Example(seed)
		for name, lose := range waiting {
			other := s.clone()
			lose(&other)
			if s.noticed(other) {
				t.Logf("scene %d shows %s", seed, name)
				delete(waiting, name)
			}
		}
	}
	for name := range waiting {
		t.Errorf("nothing shows whether %s is read", name)
	}
}
