// SPDX-License-Identifier: Apache-2.0

package kubeapi_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
)

// The server is in one namespace and the client in another one, as an agent
// in the namespace of its node will be.
func TestServerInANamespaceIsReachedFromAnotherOne(t *testing.T) {
	tests := []struct{ name, server, node string }{
		{"IPv4", "192.0.2.1/24", "192.0.2.2/24"},
		{"IPv6", "2001:db8::1/64", "2001:db8::2/64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			control, node := newNetns(t), newNetns(t)
			wire(t, control, node, netip.MustParsePrefix(test.server), netip.MustParsePrefix(test.node))
			bind := netip.MustParsePrefix(test.server).Addr()
			server := kubeapitest.StartWith(t, kubeapi.Options{Netns: control, Bind: bind, Port: 6443})

			if want := "https://" + netip.AddrPortFrom(bind, 6443).String(); server.URL != want {
				t.Errorf("got URL %s, want %s", server.URL, want)
			}
			// From the test's own namespace, through the dialer of RESTConfig.
			createNamespace(t, clientOf(t, server), "shop")
			if err := readFrom(t, node, server, "shop"); err != nil {
				t.Errorf("reading from the node's namespace: %v", err)
			}
			// A server outside its namespace would answer here, or a dialer
			// that does not enter would reach it.
			if err := readFrom(t, newNetns(t), server, "shop"); err == nil {
				t.Error("a namespace without a link reached the server")
			}
		})
	}
}

// readFrom reads the namespace with the kubeconfig alone, over a connection
// that starts in the given network namespace.
func readFrom(t *testing.T, ns *netns.NS, s *kubeapi.Server, name string) error {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return err
	}
	config.Dial = ns.Dial
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	return err
}

// wire joins two namespaces by one link and gives each end its address.
func wire(t *testing.T, a, b *netns.NS, addrA, addrB netip.Prefix) {
	t.Helper()
	err := a.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.FD()),
		})
	})
	if err != nil {
		t.Fatalf("making a link: %v", err)
	}
	for ns, addr := range map[*netns.NS]netip.Prefix{a: addrA, b: addrB} {
		if err := ns.Do(func() error { return setUp(addr) }); err != nil {
			t.Fatalf("setting %s up: %v", addr, err)
		}
	}
}

// setUp sets up loopback and eth0 of the calling thread's namespace.
func setUp(addr netip.Prefix) error {
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			// Without duplicate address detection the address works at once.
			ip := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
			if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	return nil
}

// newNetns makes a network namespace. A server that is in it ends first.
func newNetns(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if errors.Is(err, os.ErrPermission) && os.Getenv("CI") != "true" {
		t.Skip("making a network namespace needs CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}
