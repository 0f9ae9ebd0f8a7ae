// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

// The node's object comes with the first changes, before the settings, and may never change again. Its zone counts
// from then on.
func TestTheZoneOfTheFirstObjectOfTheNode(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.Store.Update(func(tx *cluster.Tx) {
		tx.SetNode(&cluster.Node{Name: "n1", Zone: "a"})
		slice := &cluster.EndpointSlice{Key: cluster.Key{Namespace: "shop", Name: "web-1"}, Service: "web",
			Ports: []cluster.EndpointPort{{Protocol: cluster.TCP, Port: 8080}}}
		for ip, zone := range map[string]string{"10.244.1.1": "a", "10.244.2.2": "b"} {
			slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{Addr: addr(ip),
				Placement: &cluster.Placement{Ready: true, Serving: true, ZoneHints: []string{zone}}})
		}
		tx.SetEndpointSlice(slice)
	})
	s.run()
	s.until("the endpoint of the zone alone", leads("10.244.1.1:8080"))
}
