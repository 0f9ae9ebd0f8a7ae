// SPDX-License-Identifier: Apache-2.0

package gencase_test

import (
	"maps"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/lab/cases"
)

func lookAtPods(s *cases.Step, found map[string]bool) {
	v4, v6 := families(s)
	found["IPv4 only"], found["IPv6 only"], found["both families"] = v4 && !v6, v6 && !v4, v4 && v6
	numbers := map[string]uint16{} // by name
	for i := range s.Pods {
		p := &s.Pods[i]
		found["pod: terminating"] = found["pod: terminating"] || p.Terminating
		found["pod: without address"] = found["pod: without address"] || !p.IP.IsValid()
		if v4 && v6 && len(p.Addrs()) == 1 {
			found["pod of one family in a cluster of both"] = true
		}
		lookAtFinished(s, p, found)
		own := map[string]uint16{}
		for _, c := range p.Ports {
			if c.Name == "" {
				found["pod: port without name"] = true
				continue
			}
			if n := own[c.Name]; n != 0 && n != c.Port {
				found["pod: a name for two ports"] = true
			}
			if n := numbers[c.Name]; n != 0 && n != c.Port && own[c.Name] == 0 {
				found["pod: a name with another number on another pod"] = true
			}
			own[c.Name] = c.Port
		}
		maps.Copy(numbers, own)
		for _, v := range p.Labels {
			found["label: empty value"] = found["label: empty value"] || v == ""
		}
	}
}

func families(s *cases.Step) (v4, v6 bool) {
	for i := range s.Pods {
		for _, a := range s.Pods[i].Addrs() {
			v4, v6 = v4 || a.Is4(), v6 || a.Is6()
		}
	}
	return v4, v6
}

func lookAtFinished(s *cases.Step, p *cases.Pod, found map[string]bool) {
	if p.Phase == "" {
		return
	}
	found["pod: finished"] = true
	for i := range s.Pods {
		if o := &s.Pods[i]; o.Phase == "" && o.IP.IsValid() && o.IP == p.IP {
			found["pod: address of a finished pod"] = true
		}
	}
}

func lookAtNames(s *cases.Step, found map[string]bool) {
	pods, policies, perNamespace := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range s.Pods {
		p := &s.Pods[i]
		pods[p.Namespace+p.Name]++
		pods[p.Namespace+"-"+p.Name]++
		for j := range s.Pods {
			if o := &s.Pods[j]; o.Namespace != p.Namespace && len(p.Labels) > 0 && maps.Equal(o.Labels, p.Labels) {
				found["pods: same labels in two namespaces"] = true
			}
		}
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		policies[p.Namespace+p.Name]++
		policies[p.Namespace+"-"+p.Name]++
		perNamespace[p.Namespace]++
	}
	found["pods: names that join to one text"] = repeated(pods)
	found["policies: names that join to one text"] = repeated(policies)
	found["policies: several on one namespace"] = repeated(perNamespace)
}

func repeated(counts map[string]int) bool {
	for _, n := range counts {
		if n > 1 {
			return true
		}
	}
	return false
}

func lookAtBlock(s *cases.Step, b *networkingv1.IPBlock, found map[string]bool) []netip.Prefix {
	p, err := netip.ParsePrefix(b.CIDR)
	if err != nil || p.Addr().Is4In6() {
		found["block: bad"] = true
		return nil
	}
	found["block: host bits"] = found["block: host bits"] || p != p.Masked()
	found["block: /0"] = found["block: /0"] || p.Bits() == 0
	found["block: one address"] = found["block: one address"] || p.IsSingleIP()
	for i := range s.Pods {
		for _, a := range s.Pods[i].Addrs() {
			if p.Bits() > 8 && p.Contains(a) {
				found[either(s.Pods[i].HostNetwork, "block: node", "block: pod")] = true
			}
		}
	}
	for _, e := range s.Externals {
		found["block: host outside"] = found["block: host outside"] || p.Bits() > 8 && p.Contains(e.IP)
	}
	for _, text := range b.Except {
		switch e, err := netip.ParsePrefix(text); {
		case err != nil:
		case !e.Overlaps(p):
			found["block: except outside"] = true
		case e.Bits() > p.Bits():
			found["block: except inside"] = true
		default:
			found["block: except covers"] = true
		}
	}
	return []netip.Prefix{p.Masked()}
}

func lookAtPort(p networkingv1.NetworkPolicyPort, found map[string]bool) {
	if p.Protocol == nil {
		found["port: protocol absent"] = true
	} else {
		found["port: "+string(*p.Protocol)] = true
	}
	switch {
	case p.Port == nil:
		found["port: any number"] = true
	case p.Port.Type == intstr.String:
		found["port: name"] = true
	case p.Port.IntVal == 0:
		found["port: zero"] = true
	case p.EndPort != nil:
		found[either(*p.EndPort < p.Port.IntVal, "port: bad range", "port: range")] = true
	}
}
