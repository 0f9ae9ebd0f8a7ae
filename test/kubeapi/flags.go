// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// apiserverFlags returns the command line of kube-apiserver. The user's own
// flags are last, so that they win.
func apiserverFlags(c config, addr netip.AddrPort, etcdURL string) []string {
	in := func(name string) string { return filepath.Join(c.dir, name) }
	flags := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + addr.Addr().String(),
		"--advertise-address=" + addr.Addr().String(),
		"--secure-port=" + strconv.Itoa(int(addr.Port())),
		"--tls-cert-file=" + in(serverCert), "--tls-private-key-file=" + in(serverKey),
		"--client-ca-file=" + in(authorityCert),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + in(accountKey), "--service-account-signing-key-file=" + in(accountKey),
		"--service-cluster-ip-range=" + serviceRange(addr.Addr()),
		// Nobody here uses the "kubernetes" Endpoints, and on loopback the
		// API refuses them every few seconds.
		"--endpoint-reconciler-type=none",
	}
	flags = append(flags, profileFlags(c)...)
	return append(flags, c.extra...)
}

// serviceRange has the family of the address, because the API server refuses
// to advertise an address of another family.
func serviceRange(a netip.Addr) string {
	if a.Is6() {
		return "fd96::/112"
	}
	return "10.96.0.0/16"
}

// profileFlags returns nil for an unknown profile.
func profileFlags(c config) []string {
	switch c.profile {
	case "min":
		return []string{
			"--authorization-mode=AlwaysAllow",
			"--enable-priority-and-fairness=false",
			"--runtime-config=" + strings.Join(minGroups(), ","),
			"--disable-admission-plugins=" + strings.Join(minDisabled(), ","),
		}
	case "full":
		return []string{
			"--authorization-mode=Node,RBAC",
			// It refuses every pod until a controller has made the default
			// ServiceAccount of the namespace, and there are no controllers.
			"--disable-admission-plugins=ServiceAccount",
		}
	case "cluster":
		return []string{
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			// Nobody resolves the names of nodes here.
			"--kubelet-preferred-address-types=InternalIP",
			"--kubelet-client-certificate=" + filepath.Join(c.dir, "kubelet-client.crt"),
			"--kubelet-client-key=" + filepath.Join(c.dir, "kubelet-client.key"),
			"--endpoint-reconciler-type=lease", // pods reach the API by the service kubernetes
		}
	}
	return nil
}

// minGroups are the API groups of the min profile. Each group costs start
// time. Above all scheduling.k8s.io is off: a hook of it that makes the system
// priority classes waits a whole second, and /readyz waits for the hook. The
// last two groups cannot be switched off.
func minGroups() []string {
	return []string{
		"api/all=false",
		"api/v1=true",
		"networking.k8s.io/v1=true",
		"discovery.k8s.io/v1=true",
		"coordination.k8s.io/v1=true",
		"events.k8s.io/v1=true",
		"apps/v1=true",
		"apiregistration.k8s.io/v1=true",
		"apiextensions.k8s.io/v1=true",
	}
}

// minDisabled are the admission plugins that are on by default, without
// NamespaceLifecycle: that one refuses objects in namespaces that do not
// exist, and tests should meet it.
func minDisabled() []string {
	return []string{
		"CertificateApproval", "CertificateSigning", "CertificateSubjectRestriction", "ClusterTrustBundleAttest",
		"DefaultIngressClass", "DefaultStorageClass", "DefaultTolerationSeconds", "LimitRanger",
		"MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "PersistentVolumeClaimResize", "PodSecurity",
		"Priority", "ResourceQuota", "RuntimeClass", "ServiceAccount", "StorageObjectInUseProtection",
		"TaintNodesByCondition", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook",
	}
}
