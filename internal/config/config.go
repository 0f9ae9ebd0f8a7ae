// SPDX-License-Identifier: Apache-2.0

// Package config owns the agent's settings: the Config value, its defaults,
// its checks, the command line that fills it and the reference page that
// describes it.
//
// The command line is kube-router's, so that a node that runs kube-router's
// firewall can run this program with the same arguments. It never reads files,
// never talks to the kernel or to the API server, and never logs: what is worth
// saying to the operator is returned as Notices. It stands before the data
// path: the agent parses once and hands values to the parts.
package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
)

// Datapath is where packets are judged.
type Datapath string

// The datapaths. DatapathNAT judges the first packet of a connection in a
// NAT-type base chain; DatapathFilter judges in a filter-type base chain.
const (
	DatapathNAT    Datapath = "nat"
	DatapathFilter Datapath = "filter"
)

// Guard says whether packets without a valid connection are dropped for
// isolated pods.
type Guard string

// The guard modes. GuardAuto installs the guard where no other program drops
// such packets already.
const (
	GuardAuto Guard = "auto"
	GuardOn   Guard = "on"
	GuardOff  Guard = "off"
)

// Unknown says what happens to what no known pod sends or receives.
type Unknown string

// The settings for unknown pods.
const (
	UnknownClosed Unknown = "closed"
	UnknownOpen   Unknown = "open"
)

// OnChange says what happens to connections that exist when a change denies
// them.
type OnChange string

// The settings for connections that exist.
const (
	OnChangeCut  OnChange = "cut"
	OnChangeKeep OnChange = "keep"
)

// Step is a step of uninstalling that concerns all nodes.
type Step string

// The steps, in their order. Between them a DaemonSet cleans the nodes.
const (
	StepNone       Step = ""
	StepStopAgents Step = "stop-agents"
	StepAwaitNodes Step = "await-nodes"
)

// Removal says what to do about the rules that kube-router's firewall left.
type Removal string

// The removals. RemovalNowBesideBridge takes the interface kube-bridge for no sign
// of kube-router's router.
const (
	RemovalNone            Removal = ""
	RemovalPlan            Removal = "plan"
	RemovalNow             Removal = "now"
	RemovalNowBesideBridge Removal = "now-beside-kube-bridge"
)

// Probe is a question to the agent of the node.
type Probe string

// The probes.
const (
	ProbeNone  Probe = ""
	ProbeLive  Probe = "live"
	ProbeReady Probe = "ready"
)

// Show is what the agent of the node can print about itself.
type Show string

// What can be printed: the status page, the part of it for all nodes, the metrics, the rules in the kernel.
const (
	ShowNone     Show = ""
	ShowStatus   Show = "status"
	ShowEnforced Show = "enforced"
	ShowMetrics  Show = "metrics"
	ShowRuleset  Show = "ruleset"
)

// DeniedSink is where records of denied flows go, beside the agent's own memory.
type DeniedSink string

// The sinks: JSON lines on standard output, Events on the pods, counters by policy.
const (
	DeniedStdout   DeniedSink = "stdout"
	DeniedEvents   DeniedSink = "events"
	DeniedCounters DeniedSink = "counters"
)

// Audit says whether policies may be in audit mode.
type Audit string

// The settings for audit mode. AuditForbid enforces every policy.
const (
	AuditAllow Audit = "allow"
	// AuditNamespaces also obeys the annotation of namespaces.
	AuditNamespaces Audit = "allow-namespaces"
	AuditForbid     Audit = "forbid"
)

func auditValues() []Audit { return []Audit{AuditAllow, AuditNamespaces, AuditForbid} }

// LogFormat is the form of log lines.
type LogFormat string

// The log formats. LogAuto is text on a terminal and JSON elsewhere.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Ranges are addresses and hardware addresses. The zero value is none.
type Ranges struct {
	Prefixes []netip.Prefix
	Hardware []inet.HardwareRange
}

// Config is every setting of the agent. A value from Parse has been checked;
// one that was put together by hand should be passed to Validate.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file. Empty, together with an empty
	// Master and Manifests, means the in-cluster service account.
	Kubeconfig string
	// Master is the address of the API server; it overrides the kubeconfig's.
	Master string
	// Manifests is a directory of YAML files that takes the place of the API
	// server. It excludes Kubeconfig and Master.
	Manifests string
	// NodeName is the name under which pods are bound to this node. Never empty
	// after Parse.
	NodeName string
	// CacheSyncTimeout bounds the wait for the first complete list of every
	// watched kind; after it the agent exits and leaves the kernel as it was.
	CacheSyncTimeout time.Duration

	// RunFirewall must be true, except together with Cleanup.
	RunFirewall bool
	// RunServiceProxy runs the service proxy, too.
	RunServiceProxy bool
	// RunRouter must be false: that part does not exist yet.
	RunRouter bool
	// Cleanup makes the agent remove what is its own in the kernel and exit.
	Cleanup bool
	// Removal makes the agent show or remove what kube-router's firewall left, and
	// exit.
	Removal Removal
	// OpenNode makes the agent open the node, for this reason, and exit.
	OpenNode string
	// CloseNode makes the agent take that back and exit.
	CloseNode bool
	// CleanupWait makes Cleanup stay and clean up again what comes back.
	CleanupWait bool
	// Uninstall makes the agent do one step of uninstalling from all nodes and exit.
	Uninstall Step
	// UninstallTimeout is how long that may take.
	UninstallTimeout time.Duration
	// Probe makes the agent ask the one that runs on this node, and exit.
	Probe Probe
	// ListDenied makes the agent ask the one that runs on this node for the flows that were denied
	// for so long, print them and exit; 0 is no. With FollowDenied it prints what comes, too.
	ListDenied   time.Duration
	FollowDenied bool
	// Show makes the agent ask the one that runs on this node for this, print it and exit.
	Show Show
	// Connect makes the agent send a packet to each of these, print what comes back and exit. It
	// needs no right for that.
	Connect []connect.Target
	// Version makes the agent print its version and exit. Nothing else is
	// checked then.
	Version bool

	// SyncPeriod is the time between two full comparisons with the kernel.
	// Changes of the cluster do not wait for it.
	SyncPeriod time.Duration
	// Datapath is where packets are judged.
	Datapath Datapath
	// Guard says what happens to packets without a valid connection.
	Guard Guard
	// UnknownPods says what happens on interfaces that may lead to pods to
	// addresses that no known pod has.
	UnknownPods Unknown
	// Uplinks are names of interfaces, also with * and ?, that never lead to pods.
	Uplinks []string
	// ExtraAddresses are the ranges from which a pod's annotation may name further
	// addresses of the pod.
	ExtraAddresses Ranges
	// PolicyAudit says whether the annotation podwall.io/mode may put a policy into audit mode.
	PolicyAudit Audit
	// OnPolicyChange says what happens to connections that a change denies.
	OnPolicyChange OnChange
	// IPv4 and IPv6 switch rules for a family on. A family that is off is never
	// open: isolated pods are closed in it.
	IPv4, IPv6 bool

	// Services are the settings of the service proxy.
	Services Services

	// GateSocket is the Unix socket at which the container runtime's side
	// announces pods before they start; empty means none.
	GateSocket string

	// SysctlRoot is the directory in which settings of the kernel are read and
	// written; below net it must show those of the node's network namespace.
	SysctlRoot string

	// DeniedGroup is the NFLOG group by which denied packets are recorded; 0 records none. It must
	// not be used by another program of the node.
	DeniedGroup uint16
	// DeniedTo is where the records go, beside the agent's memory.
	DeniedTo []DeniedSink

	// HealthAddr is the IP address or host name to serve health and status on;
	// empty means every address.
	HealthAddr string
	// HealthPort is the TCP port for health and status; 0 means off.
	HealthPort uint16
	// MetricsAddr is the IP address or host name to serve metrics on; empty
	// means every address.
	MetricsAddr string
	// MetricsPort is the TCP port for metrics; 0 means off.
	MetricsPort uint16
	// MetricsPath is the path of the metrics, starting with a slash.
	MetricsPath string

	// LogFormat is the form of log lines.
	LogFormat LogFormat
	// Verbosity is 0 for what an operator wants to see; from 1 on every pass of the
	// loop is logged, from 2 on each object that changed.
	Verbosity int
}

// Default returns the settings of a command line without arguments. NodeName
// is left empty: it depends on the machine.
func Default() Config {
	return Config{
		CacheSyncTimeout: time.Minute,
		UninstallTimeout: 4 * time.Minute,
		RunFirewall:      true,
		SyncPeriod:       5 * time.Minute,
		Datapath:         DatapathNAT,
		Guard:            GuardAuto,
		UnknownPods:      UnknownClosed,
		OnPolicyChange:   OnChangeCut,
		PolicyAudit:      AuditAllow,
		IPv4:             true,
		IPv6:             true,
		GateSocket:       "/run/podwall/gate.sock",
		SysctlRoot:       "/proc/sys",
		HealthPort:       20244,
		MetricsPath:      "/metrics",
		LogFormat:        LogAuto,
		Services:         Services{HealthPort: 10256, Backend: BackendNFTables},
	}
}

// HealthListen returns host:port for the health server, or "" when it is off.
func (c Config) HealthListen() string { return listen(c.HealthAddr, c.HealthPort) }

// MetricsListen returns host:port for the metrics server, or "" when it is
// off. It equals HealthListen when one server is meant to do both.
func (c Config) MetricsListen() string { return listen(c.MetricsAddr, c.MetricsPort) }

func listen(addr string, port uint16) string {
	if port == 0 {
		return ""
	}
	return net.JoinHostPort(unbracket(addr), strconv.Itoa(int(port)))
}

// unbracket accepts an IPv6 address in the brackets of a URL.
func unbracket(addr string) string {
	if inner, ok := strings.CutPrefix(addr, "["); ok {
		return strings.TrimSuffix(inner, "]")
	}
	return addr
}
