// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/lab/measure/meter"
)

// kind is what is measured with packets.
type kind struct {
	meter    meter.Kind
	what     string
	unit     string
	per      float64 // nanoseconds of the unit
	protocol corev1.Protocol
	n, times int
}

func kinds() []kind {
	return []kind{
		{meter.First, "first packet of a flow", "ns", 1, corev1.ProtocolUDP, 4000, 3},
		{meter.Established, "established packet", "ns", 1, corev1.ProtocolUDP, 10_000, 3},
		{meter.Connection, "request on a connection of its own", "µs CPU", 1000, corev1.ProtocolTCP, 500, 3},
	}
}

// packets measures a kind to the server's own address and to the Services, in units of the kind. Each flow or
// connection is to another Service, in an order that is random and always the same.
func (w *world) packets(m *meter.Process, k kind, quick bool) (pod, service float64, err error) {
	// The policies' table is not what is measured. It is there beside podwall only.
	if _, err := w.tables.SetDormant("podwall", true); err != nil {
		return 0, 0, err
	}
	fronts := w.size.fronts(k.protocol)
	if w.proxy.name == oneService {
		fronts = fronts[:1]
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(fronts), func(i, j int) { fronts[i], fronts[j] = fronts[j], fronts[i] })
	own := []netip.AddrPort{netip.AddrPortFrom(w.size.serverAddr(0), port)}
	if pod, err = w.measure(m, k, quick, own); err != nil {
		return 0, 0, fmt.Errorf("to a pod: %w", err)
	}
	if service, err = w.measure(m, k, quick, fronts); err != nil {
		return 0, 0, fmt.Errorf("to Services: %w", err)
	}
	return pod, service, nil
}

// measure returns the figure of the least disturbed batch.
func (w *world) measure(m *meter.Process, k kind, quick bool, fronts []netip.AddrPort) (float64, error) {
	n := k.n
	if quick {
		n /= 20
	}
	if err := w.flows.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return 0, fmt.Errorf("emptying the connection table: %w", err)
	}
	any := netip.IPv4Unspecified()
	if w.size.IPv6 {
		any = netip.IPv6Unspecified()
	}
	batches, err := m.Measure(meter.Request{Kind: k.meter, From: w.client.NS.Path(), To: w.server.NS.Path(),
		Server: netip.AddrPortFrom(any, port), Fronts: fronts, N: n, Times: k.times})
	if err != nil {
		return 0, err
	}
	return slices.Min(batches) / k.per, nil
}
