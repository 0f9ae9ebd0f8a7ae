// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// The usual paths of a node.
const (
	runtimeSocket  = "/run/containerd/containerd.sock"
	runtimeConfig  = "/etc/containerd/config.toml"
	kubeletConfig  = "/var/lib/kubelet/config.yaml"
	proxyConfig    = "/var/lib/kube-proxy/config.yaml"
	networkConfig  = "/etc/cni/net.d/10-pods.conflist"
	plainConfig    = "/etc/cni/plain.d/10-pods.conflist"
	networkPlugins = "/opt/cni/bin"
)

// PlainRuntime is a second name of the container runtime, for a RuntimeClass. Its
// pods are wired as the others were before anybody changed the configuration of
// the pod network: without a start gate that was installed since.
const PlainRuntime = "plain"

// runtimeText is the configuration of containerd. A lower oom_score_adj is not
// allowed in all the places where this runs, and AppArmor is not there.
func runtimeText() string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = %q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
disable_apparmor = true
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
use_internal_loopback = true
bin_dirs = [%q]
conf_dir = %q
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%s]
runtime_type = 'io.containerd.runc.v2'
cni_conf_dir = %q
`, runtimeSocket, pauseImage, networkPlugins, filepath.Dir(networkConfig), PlainRuntime, filepath.Dir(plainConfig))
}

// networkText is the pod network. Nothing masquerades, so that pods see each
// other's addresses across nodes.
func (n *Node) networkText() string {
	main := `"type": "ptp", "ipMasq": false`
	if n.options.Wiring == Bridge {
		main = `"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false`
	}
	var ranges, routes []string
	for i, pods := range n.plan.pods(n.index) {
		ranges = append(ranges, fmt.Sprintf(`[{"subnet": %q%s}]`, pods, n.lastAddress(pods)))
		routes = append(routes, fmt.Sprintf(`{"dst": %q}`, n.plan.everywhere()[i]))
	}
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [
{%s, "mtu": 1500, "ipam": {"type": "host-local", "ranges": [%s], "routes": [%s]}},
{"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}
`, main, strings.Join(ranges, ", "), strings.Join(routes, ", "))
}

// lastAddress bounds the addresses that a node gives out, if options say so.
func (n *Node) lastAddress(pods netip.Prefix) string {
	if n.options.PodAddresses == 0 {
		return ""
	}
	last := pods.Addr().Next() // the gateway's
	for range n.options.PodAddresses {
		last = last.Next()
	}
	return fmt.Sprintf(`, "rangeEnd": %q`, last)
}

// kubeletText is the kubelet's configuration: usual settings, but for the
// machine (swap, cgroups of version 1, no resolver) and for disks that others
// fill.
func (n *Node) kubeletText() string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %q
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://%s
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%s
enforceNodeAllocatable: []
failSwapOn: false
resolvConf: ""
clusterDomain: cluster.local
clusterDNS: [%s]
maxPods: 110
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
volumePluginDir: /var/lib/kubelet/volumeplugins
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
`, n.plan.any(), filepath.Join(n.control, "ca.crt"), runtimeSocket, n.group(), n.resolver())
}

// resolver is the address at which pods resolve names; empty if there is none.
func (n *Node) resolver() string {
	if !n.options.Tools {
		return ""
	}
	return n.plan.fabric(1)[0].Addr().String()
}

// proxyText is kube-proxy's configuration. The sizes of the connection table are
// not a namespace's to set.
func (n *Node) proxyText(mode Proxy) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: %s
clientConnection: {kubeconfig: %s}
clusterCIDR: %s
bindAddress: 0.0.0.0
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 0s}
nftables: {minSyncPeriod: 0s}
`, mode, n.Name, filepath.Join(n.control, "proxy.kubeconfig"), n.plan.join(podRange4, podRange6))
}
