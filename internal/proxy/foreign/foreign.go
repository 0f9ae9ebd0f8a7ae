// SPDX-License-Identifier: Apache-2.0

// Package foreign decides about other service proxies on a node: which of them have rules there, whether
// podwall's may start beside them, and which objects the take-over removes, in which order. Decide is a
// function of an Inventory: it reads nothing and changes nothing. The package host reads the inventory and
// carries out the plan.
//
// Two proxies that both run overwrite each other's work; one that has stopped leaves rules that go on to
// translate to backends of that time (ADR 0030).
package foreign

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/leftover"
)

// Inventory is the state found on a node.
type Inventory struct {
	// Tables are the nftables tables of the families ip and ip6, including those of iptables-nft, with the
	// jumps of those chains that Reads wants.
	Tables []leftover.Table
	// Legacy are the tables nat and filter of iptables-legacy, which nftables does not show.
	Legacy []leftover.LegacyTable
	// Sets are the names of all ipsets.
	Sets []string
	// Links are the interfaces.
	Links []Link
	// IPVS is true if IPVS has virtual services.
	IPVS bool
	// Running are signs that another proxy runs. The caller may add some, as pods of this node that the API
	// server lists.
	Running []Sign
}

// Link is an interface: its name, its kind as the kernel names it, and how many addresses it has.
type Link struct {
	Name, Kind string
	Addresses  int
}

// Sign is a sign that a proxy runs, in words.
type Sign struct{ Proxy, Text string }

// The proxies.
const (
	KubeProxy  = "kube-proxy"
	KubeRouter = "kube-router's service proxy"
	KPNG       = "kpng"
)

// The two flavours of iptables.
const (
	inNFT    = "iptables (nft)"
	inLegacy = "iptables-legacy"
)

// Found is a proxy that has objects on the node. Whether it runs cannot be seen from them: Plan.Refusals
// has the signs that say so.
type Found struct {
	Proxy string // as KubeProxy
	Mode  string // as "nftables mode"; empty if there is only one
	Where string // nftables, iptables (nft), iptables-legacy or interface
	What  []string
}

func (f Found) String() string {
	name := f.Proxy
	if f.Mode != "" {
		name += " in " + f.Mode
	}
	return fmt.Sprintf("%s has rules on this node: %s", name, few(f.What))
}

// few joins the first names of a list.
func few(list []string) string {
	const most = 3
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

// Plan is the decision.
type Plan struct {
	Found []Found
	// Refusals are the reasons why the proxy must not start now, or not take over.
	Refusals []Refusal
	// Steps remove what the others left, in this order, after our own tables are in force. They are filled
	// with refusals too, to be shown.
	Steps []Step
	// Left are objects that are not removed, with the reason and what to do.
	Left []Left
	// Notes are programs that may translate Services too, in a way that cannot be seen from here.
	Notes []string
}

// Refusal is a reason against the start, with its cure.
type Refusal struct{ Why, Cure string }

// Step is a part of the removal. The removal of rules is one transaction of nftables, which the kernel
// applies completely or not at all; sets and interfaces go one by one.
type Step struct {
	Text    string
	Removal leftover.Removal
	Sets    []string
	Links   []string
}

// Left is something that stays, or a part of it. Harmless is true if nothing needs to be done.
type Left struct {
	What, Why, Cure string
	Harmless        bool
}

// Problem is something that the operator should know while the proxy runs.
type Problem struct{ Subject, Text, Cure string }

// Problems returns what is wrong on a node on which podwall's proxy is in force: another proxy has rules
// again, or runs, and what the take-over could not remove. The plan is one that was made with takeover.
func (p Plan) Problems() (list []Problem) {
	for _, r := range p.Refusals {
		list = append(list, Problem{"other service proxy", r.Why, r.Cure})
	}
	if len(p.Steps) > 0 && len(p.Refusals) == 0 {
		for _, f := range p.Found {
			list = append(list, Problem{"other service proxy", f.String() + ", so it runs, or did after the take-over",
				stop(f.Proxy) + ", then restart podwall with --takeover"})
		}
	}
	for _, l := range p.Left {
		if !l.Harmless {
			list = append(list, Problem{"left of another service proxy", l.What + ": " + l.Why, l.Cure})
		}
	}
	return list
}

// Decide returns the plan. Without takeover any proxy that is found refuses the start; with it only signs
// that one runs do.
func Decide(inv Inventory, takeover bool) Plan {
	p := Plan{Found: find(inv), Notes: notes(inv)}
	p.Refusals = refusals(p.Found, inv.Running, takeover)
	p.removeTables(inv)
	p.removeChains(inv)
	p.removeSets(inv)
	p.removeLinks(inv)
	p.leaveLegacy(inv)
	return p
}

// find lists the proxies that have objects.
func find(inv Inventory) (list []Found) {
	add := func(f Found, what string) {
		for i, old := range list {
			if old.Proxy == f.Proxy && old.Mode == f.Mode && old.Where == f.Where {
				list[i].What = append(old.What, what)
				return
			}
		}
		f.What = []string{what}
		list = append(list, f)
	}
	mode := "iptables mode"
	if slices.ContainsFunc(inv.Links, func(l Link) bool { return l.Name == ipvsLink }) {
		mode = "IPVS mode"
	}
	for _, t := range inv.Tables {
		if proxy := tableOf(t.Key); proxy != "" {
			add(Found{Proxy: proxy, Mode: modeOf(proxy, "nftables mode"), Where: "nftables"}, "table "+t.String())
		}
		if !iptables(t.Key) {
			continue
		}
		for _, c := range t.Chains {
			if proxy := marker(t.Name, c.Name); proxy != "" {
				add(Found{Proxy: proxy, Mode: modeOf(proxy, mode), Where: inNFT}, "chain "+t.String()+" "+c.Name)
			}
		}
	}
	for _, t := range inv.Legacy {
		for _, c := range t.Chains {
			if proxy := marker(t.Name, c); proxy != "" {
				add(Found{Proxy: proxy, Mode: modeOf(proxy, mode), Where: inLegacy},
					"chain "+t.String()+" "+c+" of iptables-legacy")
			}
		}
	}
	for _, l := range inv.Links {
		if proxy := linkOf(l.Name); proxy != "" && l.Addresses > 0 {
			add(Found{Proxy: proxy, Mode: modeOf(proxy, "IPVS mode"), Where: "interface"},
				fmt.Sprintf("interface %s with %d addresses", l.Name, l.Addresses))
		}
	}
	return list
}

// modeOf returns the mode, of proxies that have several.
func modeOf(proxy, mode string) string {
	if proxy == KubeProxy {
		return mode
	}
	return ""
}

func refusals(found []Found, running []Sign, takeover bool) (list []Refusal) {
	for _, s := range running {
		list = append(list, Refusal{s.Proxy + " runs: " + s.Text, stop(s.Proxy) + "; while it runs it writes its " +
			"rules again"})
	}
	if takeover {
		return list
	}
	for _, f := range found {
		list = append(list, Refusal{f.String(), stop(f.Proxy) + ", then start with --takeover, which removes its " +
			"rules once podwall's are in force; or leave Services to it with --run-service-proxy=false"})
	}
	return list
}

// stop says how a proxy is stopped.
func stop(proxy string) string {
	switch proxy {
	case KubeProxy:
		return "stop kube-proxy on this node (kubeadm: delete the DaemonSet kube-proxy in kube-system; k3s: " +
			"--disable-kube-proxy)"
	case KubeRouter:
		return "stop kube-router, or run it with --run-service-proxy=false"
	}
	return "stop it on this node"
}

// notes lists the networks that may have a proxy in eBPF or OVS.
func notes(inv Inventory) (list []string) {
	for _, l := range inv.Links {
		if who := networks()[l.Name]; who != "" {
			list = append(list, fmt.Sprintf("%s (interface %s) may translate Services too, before podwall sees the "+
				"packets; let only one of the two do it", who, l.Name))
		}
	}
	return list
}

// Marks returns names and handles of what was found, sorted. Different ones a moment later show that a
// proxy wrote its rules again, so it runs.
func Marks(inv Inventory) (list []string) {
	for _, t := range inv.Tables {
		own := tableOf(t.Key) != ""
		for _, c := range t.Chains {
			if !own && (!iptables(t.Key) || chainOf(t.Name, c.Name) == "") {
				continue
			}
			list = append(list, t.String()+" "+c.Name)
			for _, r := range c.Jumps {
				list = append(list, fmt.Sprintf("%s %s %d %s", t, c.Name, r.Handle, r.Target))
			}
		}
	}
	for _, t := range inv.Legacy {
		for _, c := range t.Chains {
			if chainOf(t.Name, c) != "" {
				list = append(list, "legacy "+t.String()+" "+c)
			}
		}
	}
	slices.Sort(list)
	return list
}
