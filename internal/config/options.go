// SPDX-License-Identifier: Apache-2.0

package config

import "flag"

// option is a flag that sets a field of Config.
type option struct {
	name  string
	short string // one letter, as in -V; empty for most
	arg   string // what stands for the value in the help; empty for booleans
	help  string
	// why is set for the flags that kube-router does not have. It answers the
	// question that each of them must survive: why can the program not know
	// this itself?
	why  string
	bind func(*Config) flag.Value
}

// group is a section of the help and of the reference page.
type group struct {
	title   string
	options []option
}

func groups() []group {
	return []group{
		{"Where the cluster is read from", sourceOptions()},
		{"What runs", partOptions()},
		{"What the kernel does", kernelOptions()},
		{"Services", serviceOptions()},
		{"Denied flows", deniedOptions()},
		{"Health, status and metrics", servingOptions()},
		{"Logging and help", loggingOptions()},
	}
}

func sourceOptions() []option {
	return []option{
		{name: "kubeconfig", arg: "FILE",
			help: "Kubeconfig file to reach the API server with. Without it, without --master and without " +
				"--manifests, the service account of the pod is used.",
			bind: func(c *Config) flag.Value { return text(&c.Kubeconfig) }},
		{name: "master", arg: "URL",
			help: "Address of the API server, as https://HOST:PORT. It overrides the one in the kubeconfig.",
			bind: func(c *Config) flag.Value { return server(&c.Master) }},
		{name: "manifests", arg: "DIR",
			help: "Read namespaces, pods and policies from the YAML and JSON files in this directory, and again " +
				"when they change, instead of from an API server (docs/manifests.md). Excludes --kubeconfig and " +
				"--master.",
			why: "a machine outside a cluster looks like a node whose kubeconfig is missing; only you know that " +
				"the directory is the truth.",
			bind: func(c *Config) flag.Value { return text(&c.Manifests) }},
		{name: "hostname-override", arg: "NAME",
			help: "Name of this node, as pods have it in spec.nodeName. Without it the environment variable " +
				"NODE_NAME is taken, and without that the host name in lower case.",
			bind: func(c *Config) flag.Value { return nodeName(&c.NodeName) }},
		{name: "cache-sync-timeout", arg: "DURATION",
			help: "How long to wait at the start for the first complete list of namespaces, pods, policies and " +
				"nodes. When it is over the program exits with what went wrong and leaves the kernel as it was. It " +
				"does not count the wait for this Node to exist.",
			bind: func(c *Config) flag.Value { return duration(&c.CacheSyncTimeout) }},
	}
}

func partOptions() []option {
	return []option{
		{name: "run-firewall",
			help: "Enforce network policies. False makes sense together with --cleanup-config only: Services are not " +
				"served without policies (ADR 0035).",
			bind: func(c *Config) flag.Value { return boolean(&c.RunFirewall) }},
		{name: "run-router",
			help: "Wire pods together and announce routes. Not supported yet: true is an error. In kube-router the " +
				"default is true.",
			bind: func(c *Config) flag.Value { return boolean(&c.RunRouter) }},
		{name: "run-service-proxy",
			help: "Make Services work, in the place of kube-proxy. It waits while another service proxy is on the " +
				"node. In kube-router the default is true. See docs/services.md.",
			bind: func(c *Config) flag.Value { return boolean(&c.RunServiceProxy) }},
		{name: "cleanup-config",
			help: "Remove what this program made in the kernel, and nothing else, then exit. Pods are no longer " +
				"isolated after that.",
			bind: func(c *Config) flag.Value { return boolean(&c.Cleanup) }},
		{name: "wait-after-cleanup",
			help: "With --cleanup-config: do not exit, but stay and clean up again what a start gate that is still " +
				"installed brings back. For a DaemonSet that uninstalls: a container of it must not end. See " +
				"docs/uninstall.md.",
			why: "a process that ends is right by hand and wrong in a DaemonSet, and it cannot see which of both " +
				"it is in.",
			bind: func(c *Config) flag.Value { return boolean(&c.CleanupWait) }},
		{name: "open-node", arg: "REASON",
			help: "Open this node in an emergency, then exit: no policy is enforced on it until --close-node, also " +
				"by an agent that is started again; a reboot ends it. The reason is shown in /statusz and in the " +
				"log. See docs/emergency.md.",
			why:  "that policies must not be enforced now is your decision alone.",
			bind: func(c *Config) flag.Value { return reason(&c.OpenNode) }},
		{name: "close-node",
			help: "Take --open-node back, wait until the agent on this node enforces again, and exit. Refused, " +
				"with exit code 5, where no agent runs.",
			why:  "that the emergency is over is your decision alone.",
			bind: func(c *Config) flag.Value { return boolean(&c.CloseNode) }},
		{name: "remove-kube-router-firewall", arg: "plan|now|now-beside-kube-bridge",
			help: "Remove the chains, rules and ipsets that kube-router's firewall left on this node, then exit. " +
				"plan only lists them. It refuses, with exit code 5, while kube-router runs, " +
				"where its service proxy or router is in use, and where no podwall-agent is ready. " +
				"now-beside-kube-bridge takes the " +
				"interface kube-bridge for no sign of its router. See docs/migrate-from-kube-router.md.",
			why: "rules of another program are not its own to remove, unless you say so.",
			bind: func(c *Config) flag.Value {
				return oneOf(&c.Removal, RemovalPlan, RemovalNow,
					RemovalNowBesideBridge)
			}},
		{name: "uninstall", arg: "stop-agents|await-nodes",
			help: "Do a step of uninstalling that concerns all nodes, then exit. stop-agents deletes the agents' " +
				"DaemonSet and waits until they are gone; await-nodes waits until the DaemonSet podwall-uninstall " +
				"has cleaned every node, names those that are dead or fail, and deletes it when none is left. The " +
				"Helm chart's Jobs run it; see docs/uninstall.md.",
			why:  "that podwall shall go is your decision alone.",
			bind: func(c *Config) flag.Value { return oneOf(&c.Uninstall, StepStopAgents, StepAwaitNodes) }},
		{name: "uninstall-timeout", arg: "DURATION",
			help: "How long a step of --uninstall may take. It should be shorter than helm's --timeout, so that " +
				"the Job can say which nodes are left.",
			why:  "only you know how long helm waits, and how long your nodes may take to pull an image.",
			bind: func(c *Config) flag.Value { return duration(&c.UninstallTimeout) }},
	}
}

func kernelOptions() []option {
	return []option{
		{name: "iptables-sync-period", arg: "DURATION",
			help: "Time between two full comparisons of the kernel with what it should hold. Changes of pods, " +
				"namespaces and policies are applied at once and do not wait for it. The name is kube-router's; no " +
				"iptables program is used.",
			bind: func(c *Config) flag.Value { return duration(&c.SyncPeriod) }},
		{name: "enable-ipv4",
			help: "Allow what policies allow over IPv4. False never opens the family: isolated pods are closed in it.",
			bind: func(c *Config) flag.Value { return boolean(&c.IPv4) }},
		{name: "enable-ipv6",
			help: "Allow what policies allow over IPv6. False never opens the family: isolated pods are closed in " +
				"it, link-local addresses included. In kube-router the default is false, and false leaves IPv6 " +
				"unfiltered there.",
			bind: func(c *Config) flag.Value { return boolean(&c.IPv6) }},
		{name: "datapath", arg: "nat|filter",
			help: "Where packets are judged: nat judges the first packet of a connection only, filter judges in " +
				"the ordinary filter hooks. The verdicts are the same.",
			why: "it sees another program's NAT chain that stands in the way and says so, but it cannot know what " +
				"will be installed later, or that you want to compare the two.",
			bind: func(c *Config) flag.Value { return oneOf(&c.Datapath, DatapathNAT, DatapathFilter) }},
		{name: "invalid-guard", arg: "auto|on|off",
			help: "Drop packets from and to isolated pods that belong to no valid connection. And judge ICMP " +
				"errors that pods send about connections of others. " +
				"auto: on where no other program is seen to drop such packets, or a pod of the node is isolated " +
				"for egress.",
			why: "rules that the old iptables backend installed cannot be seen, and only you know whether packets " +
				"of isolated pods take different paths out and back.",
			bind: func(c *Config) flag.Value { return oneOf(&c.Guard, GuardAuto, GuardOn, GuardOff) }},
		{name: "unknown-pods", arg: "closed|open",
			help: "What happens to packets from and to addresses that no known pod has, on interfaces that may " +
				"lead to pods: a pod that was just made, before the API names its address. closed: dropped, except " +
				"what the node sends.",
			why: "it cannot know whether this node also forwards for other things that look like pods, such as " +
				"containers of another manager on interfaces of their own.",
			bind: func(c *Config) flag.Value { return oneOf(&c.UnknownPods, UnknownClosed, UnknownOpen) }},
		{name: "on-policy-change", arg: "cut|keep",
			help: "What happens to connections that exist when a change denies them. cut: they end, and stay cut; " +
				"those that are still allowed go on. keep: they go on until one end closes them. Connections of a " +
				"pod whose address another pod gets always end.",
			why: "Kubernetes leaves it open, and only you know whether a connection that was allowed when it " +
				"began may be finished.",
			bind: func(c *Config) flag.Value { return oneOf(&c.OnPolicyChange, OnChangeCut, OnChangeKeep) }},
		{name: "policy-audit", arg: "allow|allow-namespaces|forbid",
			help: "Whether the annotation podwall.io/mode: audit on a policy is obeyed: it is not enforced, and " +
				"only found out what it would deny. allow-namespaces: also that of a namespace, for its policies " +
				"without a mode of their own. forbid: every policy is enforced. See docs/audit.md.",
			why: "who may change a policy could switch its isolation off by an annotation, and only you know " +
				"who that is.",
			bind: func(c *Config) flag.Value { return oneOf(&c.PolicyAudit, auditValues()...) }},
		{name: "uplink-interfaces", arg: "NAME,…",
			help: "Interfaces that lead elsewhere than to pods, in addition to those that the agent finds: with a " +
				"route through a gateway or an address of the node, network cards, tunnels, bridges of others. " +
				"Names may have * and ?.",
			why: "a pair of virtual interfaces whose other end is in another network namespace looks like a pod, " +
				"whatever is behind it.",
			bind: func(c *Config) flag.Value { return names(&c.Uplinks) }},
		{name: "extra-addresses", arg: "RANGE,…",
			help: "Ranges from which pods may have further addresses by their annotation " +
				"podwall.io/extra-addresses: prefixes as 10.200.0.0/24 or fd00:200::/64, and hardware addresses as " +
				"52:54:00:00:00:00/24. Empty: none. See docs/extra-addresses.md.",
			why: "who may annotate a pod could take the address of another, and only you know which addresses the " +
				"pod network assigns to no pod.",
			bind: func(c *Config) flag.Value { return ranges(&c.ExtraAddresses) }},
		{name: "gate-socket", arg: "FILE",
			help: "Unix socket at which podwall-gate announces pods before their containers start; see " +
				"docs/gate.md. Empty: none, and a pod is closed until the API names its address.",
			why: "podwall-gate must find it too, and only you know which directory of the node is visible in the " +
				"agent's container.",
			bind: func(c *Config) flag.Value { return socket(&c.GateSocket) }},
		{name: "sysctl-root", arg: "DIR",
			help: "Directory whose net/ shows the kernel's settings and lets them be written. In a container that " +
				"is not privileged /proc/sys is read-only: mount the node's /proc/sys/net at DIR/net. Two settings " +
				"are written, both only where they are needed: net.bridge.bridge-nf-filter-vlan-tagged, and " +
				"net.ipv6.conf.*.disable_ipv6 of the self-test's own interface.",
			why: "a runtime makes /proc/sys read-only for a container, and only you know where the node's " +
				"settings are mounted in it.",
			bind: func(c *Config) flag.Value { return text(&c.SysctlRoot) }},
	}
}

func deniedOptions() []option {
	return []option{
		{name: "denied-flows-group", arg: "GROUP",
			help: "Record the flows that policies deny, with the policies and the nearest rule, by this NFLOG " +
				"group of the kernel; 0 records none, and then nothing of it is in the kernel. Of each pod and peer " +
				"ten packets a second are recorded. The agent keeps the newest 4,096 records for kubectl podwall " +
				"flows. See docs/flows.md.",
			why: "a group has one reader: only you know which groups other programs of the node use, such as " +
				"ulogd.",
			bind: func(c *Config) flag.Value { return nflogGroup(&c.DeniedGroup) }},
		{name: "denied-flows-to", arg: "SINK,…",
			help: "Where the records go too: stdout, one JSON object a line; events, an Event on the pod whose " +
				"policies deny the flow, at most 10 of a namespace and 30 in all in a minute; counters, the metric " +
				"podwall_policy_denied_packets_total with the name of the policy.",
			why: "who may read the agent's log, Events and metrics may not be who may know about the flows of " +
				"all namespaces, and each costs something.",
			bind: func(c *Config) flag.Value {
				return manyOf(&c.DeniedTo, DeniedStdout, DeniedEvents, DeniedCounters)
			}},
		{name: "list-denied-flows", arg: "DURATION",
			help: "Print the flows that the agent of this node has denied in this time, as JSON lines, and exit. " +
				"As root, on the node or in the agent's container. kubectl podwall flows runs it on all nodes.",
			why:  "that you want to know is for you to say.",
			bind: func(c *Config) flag.Value { return span(&c.ListDenied) }},
		{name: "follow",
			help: "With --list-denied-flows: do not exit, but print what is denied from then on, too.",
			why:  "only you know when you have seen enough.",
			bind: func(c *Config) flag.Value { return boolean(&c.FollowDenied) }},
	}
}

func servingOptions() []option {
	return []option{
		{name: "health-addr", arg: "ADDR",
			help: "Address to serve /healthz, /readyz and /statusz on. Empty: every address.",
			bind: func(c *Config) flag.Value { return text(&c.HealthAddr) }},
		{name: "health-port", arg: "PORT",
			help: "TCP port for health and status; 0 switches them off.",
			bind: func(c *Config) flag.Value { return port(&c.HealthPort) }},
		{name: "probe", arg: "live|ready",
			help: "Ask the agent that runs on this node, print its answer and exit: 0 if it is live, or ready, " +
				"else 1. For exec probes of the kubelet and for people; it works as root, also while another " +
				"program has the health port.",
			why: "a probe is a process of its own, and whether it asks for a restart or for readiness is for the " +
				"kubelet to say.",
			bind: func(c *Config) flag.Value { return oneOf(&c.Probe, ProbeLive, ProbeReady) }},
		{name: "show", arg: "status|enforced|metrics|ruleset",
			help: "Print what the agent that runs on this node knows, and exit: its /statusz, the part of it for " +
				"kubectl podwall status, its metrics (all also where their ports are off), or the nftables rules " +
				"that it has loaded, with what differs in the kernel. As root, on the node or in the agent's " +
				"container. kubectl podwall bundle runs it on all nodes.",
			why: "that you want to know is for you to say.",
			bind: func(c *Config) flag.Value {
				return oneOf(&c.Show, ShowStatus, ShowEnforced, ShowMetrics, ShowRuleset)
			}},
		{name: "connect", arg: "TARGET,…",
			help: "Send a packet to each target, print as a line of JSON what comes back within 5 seconds, and exit. " +
				"A target is tcp/ADDRESS:PORT, udp/… or sctp/…, with an IPv6 address in brackets; at most 32. In a " +
				"container the line is its termination message, too. It needs no right and no agent. kubectl podwall " +
				"explain --probe runs it in a pod.",
			why:  "where you want to connect to is for you to say.",
			bind: func(c *Config) flag.Value { return targets(&c.Connect) }},
		{name: "metrics-addr", arg: "ADDR",
			help: "Address to serve metrics on. Empty: every address.",
			bind: func(c *Config) flag.Value { return text(&c.MetricsAddr) }},
		{name: "metrics-port", arg: "PORT",
			help: "TCP port for metrics; 0 switches them off. With the address and port of health, one " +
				"server does both.",
			bind: func(c *Config) flag.Value { return port(&c.MetricsPort) }},
		{name: "metrics-path", arg: "PATH",
			help: "Path of the metrics.",
			bind: func(c *Config) flag.Value { return text(&c.MetricsPath) }},
	}
}

func loggingOptions() []option {
	return []option{
		{name: "v", short: "v", arg: "LEVEL",
			help: "How much to log: 0 for what an operator wants to see, 1 for every pass, 2 and more for each " +
				"object that changed.",
			bind: func(c *Config) flag.Value { return integer(&c.Verbosity) }},
		{name: "log-format", arg: "auto|text|json",
			help: "Form of the log lines. auto: text on a terminal, JSON elsewhere.",
			why:  "it sees whether a terminal reads its log, but not what the log collector behind a pipe expects.",
			bind: func(c *Config) flag.Value { return oneOf(&c.LogFormat, LogAuto, LogText, LogJSON) }},
		{name: "version", short: "V",
			help: "Print the version and exit.",
			bind: func(c *Config) flag.Value { return boolean(&c.Version) }},
		{name: "help", short: "h",
			help: "Print this help and exit.",
			bind: func(*Config) flag.Value { return boolean(new(bool)) }},
	}
}
