// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// writeCluster writes what does not grow, and wires those who ask.
func (s *stage) writeCluster(ctx context.Context) (err error) {
	if s.client, err = s.wire(client()); err != nil {
		return err
	}
	if s.stranger, err = s.wire(stranger()); err != nil {
		return err
	}
	objects := s.nodeObjects()
	for _, p := range append(servers(), client(), stranger()) {
		objects = append(objects, p.object(s.nodeAddrs(p.node)))
	}
	return s.server.Fill(ctx, append(objects, serviceObject(tested, testedAddress),
		sliceObject(tested, "0", servers()), policy()))
}

// nodeObjects are nodes and namespaces.
func (s *stage) nodeObjects() (list []metav1.Object) {
	for i := range nodes {
		list = append(list, nodeObject(i+1, s.nodeAddrs(i+1)))
	}
	for _, name := range []string{home, abroad} {
		list = append(list, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return list
}

// nodeAddrs are the addresses of a node; one that is a name only has one that nobody
// has.
func (s *stage) nodeAddrs(n int) []netip.Addr {
	if e := s.bed.Node(nodeName(n)); e != nil {
		return e.Addrs
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{172, 31, 0, byte(n)})}
}

// grow makes the pods that do nothing up to a number: those of the real nodes
// as namespaces, all as objects, and what stands behind the Services.
func (s *stage) grow(ctx context.Context, pods int) error {
	fresh := idlePods(s.Services, pods)[s.pods:]
	var objects []metav1.Object
	for _, p := range fresh {
		if _, err := s.wire(p); err != nil {
			return err
		}
		objects = append(objects, p.object(s.nodeAddrs(p.node)))
	}
	if err := s.server.Fill(ctx, append(objects, s.services(fresh, strconv.Itoa(pods))...)); err != nil {
		return err
	}
	s.pods = pods
	s.Say(fmt.Sprintf("%s pods of %s services are written, waiting for kube-proxy", thousands(pods),
		thousands(s.Services)))
	return s.proxied(ctx)
}

// services are a slice of the fresh pods for each Service, and the Services
// before the first.
func (s *stage) services(fresh []pod, suffix string) (list []metav1.Object) {
	behind := make([][]pod, s.Services)
	for _, p := range fresh {
		behind[p.service] = append(behind[p.service], p)
	}
	if s.pods == 0 {
		for i := range behind {
			list = append(list, serviceObject(idleService(i), ""))
		}
	}
	for i, pods := range behind {
		list = append(list, sliceObject(idleService(i), suffix, pods))
	}
	return list
}
