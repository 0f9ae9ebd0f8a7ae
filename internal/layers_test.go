// SPDX-License-Identifier: Apache-2.0

package internal_test

import "slices"

// layer says what a package, and the packages below it, may import. Standard
// library imports are free unless the layer is pure.
type layer struct {
	pkg    string
	pure   bool     // no effects: nothing of effects() may be imported
	timed  bool     // and pure, but for the types of package time: times are given to it
	may    []string // imports beside the standard library; nil means any
	never  []string // imports that are refused even when may is nil
	reason string
}

func layers() []layer {
	k8s := []string{"k8s.io/api", "k8s.io/apimachinery"}
	kernel := kernelLibraries()
	return append(slices.Concat(labLayers(k8s), proxyLayers(), leftoverLayers(kernel), connectLayers()), []layer{
		{pkg: "internal/cluster", pure: true, may: append(ours("inet", "wake"), "k8s.io/apimachinery/pkg/labels",
			"k8s.io/apimachinery/pkg/selection"), reason: "it is the vocabulary of all others"},
		{pkg: "internal/immutable", pure: true, may: []string{}, reason: "a container knows nothing of what it holds"},
		{pkg: "internal/wake", pure: true, may: []string{}, reason: "whoever waits for work uses it"},
		{pkg: "internal/pace", may: []string{}, reason: "every loop of the agent waits by it"},
		{pkg: "internal/web", may: []string{}, reason: "whoever has pages uses it"},
		{pkg: "internal/logging", may: []string{}, reason: "all programs use it"},
		{pkg: "internal/source/feed", may: []string{}, reason: "both sources and those who show it say it in these words"},
		{pkg: "internal/inet", pure: true, may: ours("immutable"), reason: "it is below whatever has addresses and ports"},
		{pkg: "internal/netpol/program", pure: true, may: ours("immutable", "inet"),
			reason: "a program must be readable without Kubernetes and without nftables"},
		{pkg: "internal/netpol/policy", pure: true, may: ours("cluster", "immutable", "inet", "netpol/program"),
			reason: "what policies mean is a function of the cluster, said in the program's words"},
		{pkg: "internal/netpol/compile", pure: true, may: ours("cluster", "immutable", "inet", "netpol/policy", "netpol/program"),
			reason: "it turns a model into a program and knows no backend"},
		{pkg: "internal/explain", pure: true, may: append(ours("cluster", "inet", "netpol/policy", "netpol/compile", "netpol/program"),
			"k8s.io/apimachinery/pkg/labels", "k8s.io/apimachinery/pkg/selection"),
			reason: "reasons come from what the agents enforce, not from the oracle, which judges them in tests"},
		{pkg: "internal/netpol/denied", pure: true, timed: true, may: ours("cluster", "inet", "netpol/policy", "netpol/program"),
			reason: "why a packet was denied is a function of what is enforced"},
		{pkg: "internal/netpol/generate", pure: true, timed: true, may: append(ours("cluster", "netpol/denied"), k8s...),
			reason: "policies are a function of what was seen"},
		{pkg: "internal/netpol/oracle", pure: true, may: ours("cluster"),
			reason: "a witness that shares code with policy, compile or program repeats their mistakes"},
		{pkg: "internal/netpol/lint", pure: true, may: ours("cluster", "spelling"),
			reason: "questions about a policy are a function of the cluster; whoever shows them decides which"},
		{pkg: "internal/cluster/convert", pure: true, may: append(ours("cluster", "inet", "kuberouter/annotations"), k8s...),
			reason: "API objects become cluster values here and nothing else happens"},
		{pkg: "internal/complete", never: append(ours("lab", "agent", "datapath", "kernel", "source/kube", "netpol"), "k8s.io/client-go"),
			reason: "it adds to manifests what a cluster adds, for whoever asks about them"},
		{pkg: "internal/complete/kubelet", pure: true, may: k8s,
			reason: "what a kubelet writes about a pod is a function of the pod"},
		{pkg: "internal/netpol/decide", pure: true, timed: true, may: ours("inet", "netpol/program", "netpol/cut"),
			reason: "a decision is a function of what was read and what was decided before"},
		{pkg: "internal/netpol/cut", pure: true, may: ours("inet", "netpol/program"),
			reason: "which connections end is a function of the program and of what the table says"},
		{pkg: "internal/kernel/conntrack", may: append(ours("inet"), kernel...), reason: "it reads and deletes what it is told to"},
		{pkg: "internal/kernel/ipvs", may: append(ours("inet"), "github.com/cloudflare/ipvs", "golang.org/x/sys"),
			reason: "it does not know whose a virtual service is"},
		{pkg: "internal/kernel/nflog", may: kernel, reason: "it receives packets and does not know what they mean"},
		{pkg: "internal/kernel/nft", may: append(ours("immutable", "inet"), kernel...), reason: "a driver serves every ruleset and knows none"},
		{pkg: "internal/netpol/ruleset", may: ours("immutable", "inet", "netpol/program", "kernel/nft"),
			reason: "it says the program in the statements of the driver, and knows no policy"},
		{pkg: "internal/datapath", may: append(ours("wake", "immutable", "inet", "netpol/program", "netpol/ruleset", "kernel/nft",
			"kernel/links", "netpol/cut", "netpol/decide", "kernel/conntrack", "kernel/sysctl", "kernel/xtables", "kuberouter"), kernel...),
			reason: "it makes the kernel agree with a program, whatever the program means"},
		{pkg: "internal/kernel/sysctl", may: []string{"golang.org/x/sys"}, reason: "files with one value each"},
		{pkg: "internal/kernel/xtables", may: []string{"golang.org/x/sys"}, reason: "it lists chains and knows none"},
		{pkg: "internal/kernel/links", may: append(append(ours("inet", "wake", "kernel/sysctl"), "golang.org/x/net/bpf"), kernel...),
			reason: "it looks at interfaces, not at policies"},
		{pkg: "internal/source/kube", never: ours("netpol/policy", "netpol/compile", "netpol/program", "kernel/nft", "datapath",
			"agent"), reason: "a source fills the store and decides nothing"},
		{pkg: "internal/source/manifest", never: ours("netpol/policy", "netpol/compile", "netpol/program", "kernel/nft", "datapath",
			"agent", "source/kube"), reason: "a source fills the store and decides nothing"},
		{pkg: "internal/observe", never: append(ours("netpol/policy", "netpol/compile", "netpol/program", "kernel/nft", "datapath",
			"agent", "source/kube"), kernel[:3]...), reason: "it says what it was told"},
		{pkg: "internal/gate", may: []string{"golang.org/x/sys"}, reason: "a protocol knows neither of its ends"},
		{pkg: "internal/gate/cni", never: append(ours("cluster", "netpol/policy", "netpol/compile", "netpol/program", "kernel/nft",
			"datapath", "agent"), "k8s.io"), reason: "it announces pods and decides nothing; it must start in milliseconds"},
		{pkg: "internal/gate/nri", never: append(ours("cluster", "netpol/policy", "netpol/compile", "netpol/program", "kernel/nft",
			"datapath", "agent"), "k8s.io"), reason: "it announces pods and decides nothing"},
		{pkg: "internal/spelling", pure: true, may: []string{}, reason: "it compares words"},
		{pkg: "internal/config", may: ours("connect", "inet", "spelling"),
			reason: "settings are values; those who use them are told by the agent"},
		{pkg: "internal/command", may: append(ours("terminal"), "github.com/spf13/cobra"),
			reason: "it serves any command line and knows no command"},
		{pkg: "internal/terminal", pure: true, may: []string{}, reason: "it breaks lines"},
		{pkg: "internal/kubectl", never: ours("lab", "agent", "datapath", "observe", "netpol/oracle", "source/kube"),
			reason: "it answers from the rules that agents load, and from what it reads itself"},
		{pkg: "internal/uninstall", may: []string{"k8s.io/apimachinery", "k8s.io/client-go/rest"},
			reason: "it asks the API server about nodes and touches none"},
		{pkg: "internal/agent", never: ours("lab", "netpol/oracle", "lab/cases", "lab/testkit"), reason: "what serves tests is not in the agent"},
	}...)
}

// kernelLibraries are what the drivers of the kernel use.
func kernelLibraries() []string {
	return []string{"github.com/google/nftables", "github.com/mdlayher/netlink",
		"github.com/vishvananda/netlink", "golang.org/x/sys", "golang.org/x/sync"}
}

// leftoverLayers are those that concern objects of other programs.
func leftoverLayers(kernel []string) []layer {
	return []layer{
		{pkg: "internal/leftover", pure: true, may: []string{}, reason: "objects of other programs are values"},
		{pkg: "internal/leftover/host", may: append(ours("leftover", "kernel/xtables"), kernel...),
			reason: "it reads and removes objects of other programs, and decides nothing"},
		{pkg: "internal/kuberouter", pure: true, may: ours("leftover"),
			reason: "what may be removed is a function of what was found"},
		{pkg: "internal/kuberouter/annotations", pure: true, may: []string{},
			reason: "what an annotation asks for is a function of its text"},
		{pkg: "internal/kuberouter/host", may: append(ours("kuberouter", "leftover"), kernel...),
			reason: "it looks and removes, and decides nothing"},
	}
}

// connectLayers are those of probes in pods.
func connectLayers() []layer {
	return []layer{
		{pkg: "internal/connect", pure: true, may: ours("inet"),
			reason: "questions and answers of a probe are values: who asks and who sends share them"},
		{pkg: "internal/connect/socket", may: append(ours("connect", "inet"), "golang.org/x/sys"),
			reason: "it sends packets and decides nothing; it runs in pods of users"},
	}
}

// proxyLayers are those of the service proxy.
func proxyLayers() []layer {
	kernel := kernelLibraries()
	return []layer{
		{pkg: "internal/cluster/endpoints", pure: true, may: append(ours("cluster", "inet"), "k8s.io/api",
			"k8s.io/apimachinery"), reason: "what a controller makes of Services and pods is a function of them"},
		{pkg: "internal/proxy/program", pure: true, may: ours("immutable", "inet"),
			reason: "a program must be readable without Kubernetes and without nftables"},
		{pkg: "internal/proxy/service", pure: true, may: ours("cluster", "immutable", "inet", "proxy/program"),
			reason: "what Services mean is a function of the cluster, said in the program's words"},
		{pkg: "internal/proxy/oracle", pure: true, may: ours("cluster"),
			reason: "a witness that shares code with service or program repeats their mistakes"},
		{pkg: "internal/proxy/stale", pure: true, may: ours("inet", "proxy/program"),
			reason: "which entries end is a function of the program and of what the table says"},
		{pkg: "internal/proxy/tables", may: append(ours("inet", "pace", "wake", "proxy/program", "proxy/service", "proxy/ruleset",
			"proxy/stale", "kernel/nft", "kernel/conntrack"), kernel...),
			reason: "it makes the kernel agree with the programs, and does not know Kubernetes"},
		{pkg: "internal/proxy/ipvs", pure: true, may: ours("immutable", "inet", "proxy/program", "kernel/ipvs"),
			reason: "it plans virtual services and does not know Kubernetes"},
		{pkg: "internal/proxy/ipvs/host", may: append(ours("inet", "proxy/ipvs", "proxy/program", "proxy/tables", "kernel/ipvs",
			"kernel/sysctl"), "github.com/vishvananda/netlink", "golang.org/x/sys"),
			reason: "it carries out plans, and decides nothing"},
		{pkg: "internal/proxy/foreign", pure: true, may: ours("leftover"),
			reason: "what may be removed, and whether to start, is a function of what was found"},
		{pkg: "internal/proxy/foreign/host", may: append(ours("proxy/foreign", "proxy/health", "leftover"),
			"github.com/vishvananda/netlink"), reason: "it looks and removes, and decides nothing"},
		{pkg: "internal/proxy/health", may: ours("wake", "web", "cluster", "proxy/service"),
			reason: "it answers load balancers from values that it is given"},
		{pkg: "internal/proxy/node", may: append(ours("kernel/sysctl"), "golang.org/x/sys", "github.com/vishvananda/netlink"),
			reason: "it sets what it is told to, and looks at routes; it knows no Service"},
		{pkg: "internal/proxy/ruleset", may: ours("immutable", "inet", "proxy/program", "kernel/nft"),
			reason: "it says the program in the statements of the driver, and knows no Service"},
	}
}

// labLayers are those of tests and tools.
func labLayers(k8s []string) []layer {
	return []layer{
		{pkg: "internal/lab/cases", pure: true, may: append(ours("cluster", "cluster/convert", "inet", "netpol/program",
			"netpol/oracle", "complete/kubelet"), append(k8s, "sigs.k8s.io/yaml")...),
			reason: "a case is data; the backends are given to it"},
		{pkg: "internal/lab/scenarios", pure: true, may: append(ours("cluster", "cluster/convert", "proxy/oracle"),
			append(k8s, "sigs.k8s.io/yaml")...),
			reason: "a scenario is data; whoever judges is given it"},
		{pkg: "internal/lab/bench", pure: true, may: []string{"golang.org/x/perf"},
			reason: "how values are summed up does not depend on what they measure"},
		{pkg: "internal/lab/bench/plot", pure: true, may: append(ours("lab/bench"), "gonum.org/v1/plot"),
			reason: "a picture shows what it is given"},
		{pkg: "internal/lab/trial", never: append(ours("agent", "datapath", "netpol/policy", "netpol/compile", "observe"),
			"k8s.io/client-go"), reason: "it runs agents as processes and believes packets only"},
		{pkg: "internal/lab/measure", never: ours("agent", "datapath", "netpol/policy", "netpol/compile", "observe"),
			reason: "it runs agents as processes and measures them from outside"},
		{pkg: "internal/lab/process", may: append(ours("lab/netns"), "golang.org/x/sys"),
			reason: "it runs any program; podwall-lab links it, so it knows nothing of tests"},
		{pkg: "internal/lab/cli", never: append(ours("agent", "datapath"), "k8s.io/client-go"),
			reason: "what it shows comes from agents in the bed, or from pure functions"},
		{pkg: "internal/lab/testkit", never: ours("agent"), reason: "tests run an agent as a process, as a node does"},
		{pkg: "internal/lab", never: ours("agent"), reason: "the bed runs an agent as a process, as a node does"},
	}
}

// owners lists modules that only some packages may import outside of tests.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/cloudflare/ipvs": {"internal/kernel/ipvs"},
		"github.com/google/nftables": {"internal/kernel/nft", "internal/datapath", "internal/lab", "internal/leftover/host"},
		"k8s.io/client-go": {"internal/source/kube", "internal/uninstall", "internal/kubectl",
			"internal/lab/kubeapi", "internal/lab/measure",
			"internal/lab/testkit/kubeapitest", "test/cluster"},
		"k8s.io/cli-runtime":                 {"internal/kubectl"},
		"github.com/prometheus":              {"internal/observe"},
		"github.com/fsnotify/fsnotify":       {"internal/source/manifest", "internal/gate/cni"},
		"github.com/containernetworking/cni": {"internal/gate/cni"},
		"github.com/containerd/nri":          {"internal/gate/nri"},
		"gonum.org/v1/plot":                  {"internal/lab/bench/plot"},
		module + "internal/lab/testkit":      {"internal/lab/testkit"},
		"github.com/google/go-cmp":           {"internal/lab/testkit"},
		"go.uber.org/goleak":                 {},
		"pgregory.net/rapid":                 {"internal/lab/testkit"},
	}
}

// effects are the imports that a pure package must not have: files, network,
// clock, chance, logs, and the libraries that talk to something.
func effects() []string {
	return []string{"os", "net", "net/http", "log", "time", "math/rand", "syscall", "golang.org/x/sys",
		"k8s.io/client-go", "k8s.io/klog", "github.com/prometheus", "github.com/google/nftables",
		"github.com/mdlayher", "github.com/vishvananda", "github.com/cloudflare/ipvs"}
}

// exceptions are the files and functions that may be larger than the limits,
// each with its reason, as in "internal/x/y.go" or "internal/x/y.go:Func".
func exceptions() map[string]string { return map[string]string{} }
