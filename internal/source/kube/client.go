// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"runtime/debug"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// accept names JSON too, for servers that do not speak protobuf.
const accept = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON

// LoadConfig finds the API server: from a kubeconfig file, whose server address
// master overrides; from master alone; or, with both empty, from the service
// account that Kubernetes gives to a pod.
func LoadConfig(kubeconfig, master string) (*rest.Config, error) {
	cfg, err := loadConfig(kubeconfig, master)
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("loading the API server's address and credentials: %s names no server; write a "+
			"kubeconfig there, or give another one with --kubeconfig", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("loading the API server's address and credentials: %w%s", err,
			cureForLogin(err, kubeconfig, master))
	}
	cfg.UserAgent = userAgent()
	return cfg, nil
}

// cureForLogin says what to do where files are missing, as in a container without
// their mounts.
func cureForLogin(err error, kubeconfig, master string) string {
	switch {
	case kubeconfig != "" && errors.Is(err, fs.ErrNotExist):
		return "; give another file with --kubeconfig; in a container the directory that has it must be mounted"
	case kubeconfig != "" || master != "":
		return ""
	case errors.Is(err, rest.ErrNotInCluster):
		return "; outside a cluster give a file with --kubeconfig, or a directory of policies and pods with --manifests"
	}
	return "; mount the service account's token there (automountServiceAccountToken, or a projected volume), " +
		"or give a file with --kubeconfig"
}

func loadConfig(kubeconfig, master string) (*rest.Config, error) {
	if kubeconfig == "" && master == "" {
		return rest.InClusterConfig()
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	overrides := &clientcmd.ConfigOverrides{ClusterInfo: api.Cluster{Server: master}}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
}

// userAgent is how API server logs and metrics name us.
func userAgent() string {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return "podwall-agent/" + version
}

// newHTTPClient makes the one HTTP client, and so the one connection, that all
// kinds share.
func newHTTPClient(cfg *rest.Config) (*http.Client, error) {
	named := rest.CopyConfig(cfg)
	named.UserAgent = cmp.Or(cfg.UserAgent, userAgent())
	named.Wrap(pinged)
	client, err := rest.HTTPClientFor(named)
	if err != nil {
		return nil, fmt.Errorf("setting up the connection to %s: %w", cfg.Host, err)
	}
	return client, nil
}

// A connection on which nothing came for pingAfter is asked for a sign of life,
// and given up when none comes within pingTimeout. client-go would take 45
// seconds for that, during which changes are not seen.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// pinged makes a transport notice connections that died in silence.
func pinged(rt http.RoundTripper) http.RoundTripper {
	t := transportOf(rt)
	if t == http.DefaultTransport {
		return rt // shared; it is used without encryption, and so without HTTP/2
	}
	if t != nil && t.HTTP2 == nil { // client-go shares transports
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	}
	return rt
}

// transportOf finds what carries the requests below all wrappers, or nil.
func transportOf(rt http.RoundTripper) *http.Transport {
	for {
		switch t := rt.(type) {
		case *http.Transport:
			return t
		case utilnet.RoundTripperWrapper:
			rt = t.WrappedRoundTripper()
		default:
			return nil
		}
	}
}

// restClient makes a client for one group. It knows what is read and nothing
// else: client-go's whole set of clients costs memory for nothing.
func restClient(cfg *rest.Config, client *http.Client, gv schema.GroupVersion) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := networkingv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering API types: %w", err)
	}
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Namespace{}, &corev1.NamespaceList{}, &corev1.NodeList{},
		&corev1.PodList{}, &corev1.ServiceList{}, &corev1.Event{})
	scheme.AddKnownTypes(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSliceList{})
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Pod"), &prunedPod{})
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Node"), &prunedNode{})
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Service"), &prunedService{})
	scheme.AddKnownTypeWithName(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), &prunedSlice{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	metav1.AddToGroupVersion(scheme, discoveryv1.SchemeGroupVersion)
	c := rest.CopyConfig(cfg)
	c.GroupVersion = &gv
	c.APIPath = "/apis"
	if gv.Group == "" {
		c.APIPath = "/api"
	}
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, accept
	c.QPS = -1 // a few watches need no limit of their own
	rc, err := rest.RESTClientForConfigAndClient(c, client)
	if err != nil {
		return nil, fmt.Errorf("setting up the client for %s: %w", gv, err)
	}
	return rc, nil
}
