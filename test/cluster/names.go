// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	own "github.com/podwall/podwall/internal/lab/netns"
)

// names answers DNS questions about Services, from the API as it is at that moment. There is no other name: the
// cluster has no way out. It stands in for CoreDNS, in the network of the control plane, so that names do not
// depend on what is tried.
type names struct {
	client kubernetes.Interface
	conn   *net.UDPConn
	end    context.CancelFunc
	ended  chan struct{}
}

const (
	namesPort = 53
	// clusterSuffix ends the names of Services.
	clusterSuffix = ".svc.cluster.local."
	// nameSeconds is how long an answer may be kept.
	nameSeconds = 1
	// maxNames is how many questions are answered at the same time, and nameTime how long one may take.
	maxNames = 32
	nameTime = 5 * time.Second
)

// startNames answers at an address of a network until close.
func startNames(ns *own.NS, at netip.Addr, client kubernetes.Interface) (*names, error) {
	ctx, end := context.WithCancel(context.Background())
	n := &names{client: client, end: end, ended: make(chan struct{})}
	err := ns.Do(func() (err error) {
		n.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, namesPort)))
		return err
	})
	if err != nil {
		end()
		return nil, fmt.Errorf("answering for names of Services: %w", err)
	}
	go n.serve(ctx)
	return n, nil
}

func (n *names) close() {
	n.end()
	_ = n.conn.Close() // it ends serve
	<-n.ended
}

func (n *names) serve(ctx context.Context) {
	defer close(n.ended)
	var answering sync.WaitGroup
	defer answering.Wait()
	slots := make(chan struct{}, maxNames)
	buffer := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		question := append([]byte(nil), buffer[:size]...)
		slots <- struct{}{}
		answering.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, nameTime)
			defer cancel()
			if text, err := n.answer(ctx, question); err == nil { // who asked gets none, and asks again
				_, _ = n.conn.WriteToUDPAddrPort(text, from)
			}
		})
	}
}

// answer returns the answer to a message with one question.
func (n *names) answer(ctx context.Context, message []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return nil, fmt.Errorf("reading a DNS message: %w", err)
	}
	q, err := p.Question()
	if err != nil {
		return nil, fmt.Errorf("reading a DNS question: %w", err)
	}
	found, known, err := n.find(ctx, strings.ToLower(q.Name.String()))
	if err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range found {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET,
			TTL: nameSeconds}}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			r.Header.Type, r.Body = dnsmessage.TypeA, &dnsmessage.AResource{A: a.As4()}
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			r.Header.Type, r.Body = dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: a.As16()}
		default:
			continue
		}
		reply.Answers = append(reply.Answers, r)
	}
	return reply.Pack()
}

// find returns the addresses of a name, and whether there is one.
func (n *names) find(ctx context.Context, name string) (list []netip.Addr, known bool, err error) {
	rest, ours := strings.CutSuffix(name, clusterSuffix)
	service, namespace, complete := strings.Cut(rest, ".")
	if !ours || !complete || strings.Contains(namespace, ".") {
		return nil, false, nil
	}
	s, err := n.client.CoreV1().Services(namespace).Get(ctx, service, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	case s.Spec.Type == corev1.ServiceTypeExternalName && s.Spec.ExternalName+"." != name:
		return n.find(ctx, strings.ToLower(strings.TrimSuffix(s.Spec.ExternalName, "."))+".")
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		list, err = n.endpoints(ctx, namespace, service)
		return list, true, err
	}
	return parseAll(s.Spec.ClusterIPs), true, nil
}

// endpoints returns the addresses of a headless Service.
func (n *names) endpoints(ctx context.Context, namespace, service string) (list []netip.Addr, err error) {
	all, err := n.client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	for _, s := range all.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				list = append(list, parseAll(e.Addresses)...)
			}
		}
	}
	return list, nil
}

// parseAll leaves out what is no address, as "None".
func parseAll(texts []string) (list []netip.Addr) {
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			list = append(list, a)
		}
	}
	return list
}
