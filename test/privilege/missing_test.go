// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/observe"
)

// missing is something that is taken away, and what the agent says.
type missing struct {
	name  string
	take  func(t *testing.T, pod *corev1.PodSpec)
	edits []edit
	set   []netns.Sysctl // of the node, 0 before and after
	// exit is the status with which it ends at once, 0 if it goes on.
	exit int
	// says are parts of the one error that an agent logs which ends, else of the
	// problem with this subject.
	says    []string
	problem string
	// ready says that it is ready all the same.
	ready bool
}

// withoutMounts are the cases for mounts, by the volume.
func withoutMounts() map[string]missing {
	return map[string]missing{
		"run-podwall": {problem: "start gate", ready: true,
			says: []string{"read-only file system", "mount the node's /run/podwall into the agent's container, writable"}},
		"sysctl-net": {problem: "bridge kube-bridge", says: []string{"VLAN-tagged frames", "read-only file system",
			"mount the node's /proc/sys/net"}},
		"token": {exit: 1, says: []string{"/var/run/secrets/kubernetes.io/serviceaccount/token", "mount the service account's token"}},
	}
}

func withoutRights() []missing {
	agent := func(change func(*corev1.Container)) func(*testing.T, *corev1.PodSpec) {
		return func(t *testing.T, pod *corev1.PodSpec) { change(container(t, pod, "agent")) }
	}
	drop := func(c *corev1.Container) { c.SecurityContext.Capabilities.Add = nil }
	nobody := int64(65534)
	noRight := []string{"no right to use nftables", "CAP_NET_ADMIN is missing: add NET_ADMIN to the container's securityContext.capabilities"}
	return []missing{
		{name: "capability NET_ADMIN", take: agent(drop), exit: 3, says: noRight},
		{name: "user root", take: agent(func(c *corev1.Container) { c.SecurityContext.RunAsUser = &nobody }), exit: 3, says: noRight},
		{name: "the node's network", take: func(_ *testing.T, pod *corev1.PodSpec) { pod.HostNetwork = false }, exit: 4,
			says: []string{"none of the addresses of node node1", "run with hostNetwork"}},
		{name: "the Node's name", take: agent(func(c *corev1.Container) { c.Env = nil }), edits: []edit{renamed},
			problem: "node", says: []string{`there is no Node "localhost"`, "Nodes are node1", "set NODE_NAME from the field spec.nodeName"}},
		{name: "netlink, by seccomp", edits: []edit{refuseNetfilter(1)}, exit: 3,
			says: []string{"no right to use nftables", "this process has CAP_NET_ADMIN, so a profile of seccomp"}},
		{name: "nftables", edits: []edit{refuseNetfilter(93)}, exit: 3, says: []string{"the kernel has no nftables; load nf_tables"}},
		{name: "br_netfilter", edits: []edit{hide("/host/proc/sys/net/bridge")},
			problem: "bridge kube-bridge", says: []string{"br_netfilter is not loaded", "modprobe br_netfilter"}},
		{name: "IPv6 for new interfaces, and the mount to switch it on",
			take: func(t *testing.T, pod *corev1.PodSpec) { unmount(t, pod, "agent", "sysctl-net") },
			set: []netns.Sysctl{{Path: "ipv6/conf/default/disable_ipv6",
				Value: "1"}}, problem: "self-test", says: []string{"new interfaces have no IPv6", "mount the node's /proc/sys/net"}},
	}
}

// Each is taken away alone. What the agent cannot do without ends it with one line
// and the documented status; with the rest it enforces what it can and says what it
// cannot.
func TestWhatIsTakenAwayIsNamed(t *testing.T) {
	w := newWorld(t, lab.Bridge, []string{"node1"})
	web := w.pod("web", "node1", "10.244.1.5", "fd00:244:1::5")
	w.admit("web")
	cases := withoutRights()
	mounts := withoutMounts()
	for _, m := range container(t, &w.m.pod, "agent").VolumeMounts {
		c, ok := mounts[m.Name]
		if !ok {
			t.Errorf("the manifest mounts %s, and no test says what for", m.Name)
			continue
		}
		delete(mounts, m.Name)
		c.name, c.take = "mount "+m.Name, func(t *testing.T, pod *corev1.PodSpec) { unmount(t, pod, "agent", m.Name) }
		cases = append(cases, c)
	}
	for name := range mounts {
		t.Errorf("the manifest mounts no %s any more", name)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pod := w.m.pod.DeepCopy()
			if c.take != nil {
				c.take(t, pod)
			}
			node := w.bed.Node("node1").NS
			check(t, node.SetSysctls(append(c.set, netns.Sysctl{Path: "bridge/bridge-nf-filter-vlan-tagged", Value: "0"})))
			for _, s := range c.set {
				s.Value = "0"
				defer func() { check(t, node.SetSysctls([]netns.Sysctl{s})) }()
			}
			a := w.host("node1", w.m.account.Name).start(t, pod, "agent", web.NS, c.edits...)
			if c.exit != 0 {
				a.Exits(c.exit)
				a.complains(t, c.says)
				return
			}
			s := a.status(t, "the problem "+c.problem, func(s observe.Status) bool { return hasProblem(s, c.problem, c.says...) })
			if c.ready {
				a.ready()
			} else if s.Ready {
				t.Error("it is ready")
			}
		})
	}
}

// complains wants one error in the log, with all parts.
func (b *box) complains(t *testing.T, parts []string) {
	t.Helper()
	var errs []string
	for line := range strings.Lines(b.Log()) {
		var l struct{ Level, Err string }
		if json.Unmarshal([]byte(line), &l) != nil {
			t.Errorf("log line %q is no JSON", line)
		}
		if l.Level == "ERROR" {
			errs = append(errs, l.Err)
		}
	}
	for _, part := range parts {
		if len(errs) != 1 || !strings.Contains(errs[0], part) {
			t.Errorf("the errors are %q, want one with %q", errs, part)
		}
	}
}

// renamed gives the container a host name that is not the node's, as without the
// node's network.
func renamed(spec object) { spec["hostname"] = "localhost" }

// refuseNetfilter lets the kernel refuse sockets of nftables with an error.
func refuseNetfilter(errno int) edit {
	return func(spec object) {
		const netlink, netfilter = 16, 12
		seccomp := spec["linux"].(object)["seccomp"].(object)
		rule := object{"names": []string{"socket"}, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": []object{
			{"index": 0, "value": netlink, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": netfilter, "op": "SCMP_CMP_EQ"}}}
		var rules []any
		for _, r := range seccomp["syscalls"].([]any) { // what it allows would win
			if names := r.(object)["names"].([]any); len(names) == 1 && names[0] == "socket" {
				continue
			}
			rules = append(rules, r)
		}
		other := object{"names": []string{"socket"}, "action": "SCMP_ACT_ALLOW",
			"args": []object{{"index": 2, "value": netfilter, "op": "SCMP_CMP_NE"}}}
		seccomp["syscalls"] = append(rules, rule, other)
	}
}

// hide lays an empty directory over one, as if the kernel had nothing there.
func hide(dir string) edit {
	return func(spec object) {
		spec["mounts"] = append(spec["mounts"].([]object), mount("tmpfs", "tmpfs", dir, "ro"))
	}
}
