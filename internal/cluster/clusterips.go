// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"
)

// serviceAddress is the reason why the cluster address of a Service is reserved. It does not name the
// Service, so that no index from addresses to Services is needed.
const serviceAddress = "the address of a Service"

// reserveClusterIPs follows the cluster addresses of Services: no pod can have one. It counts those of
// before out and those of now in; each may be nil. Other addresses of Services, which their authors
// choose freely, are not reserved: an author could take the address of a pod away.
func (tx *Tx) reserveClusterIPs(before, now []*Service) {
	r, old := &tx.store.reserved, map[netip.Addr]int{}
	count := func(list []*Service, by int) {
		for _, v := range list {
			for _, ip := range v.clusterIPs() {
				if _, seen := old[ip]; !seen {
					old[ip] = r.services[ip]
				}
				r.services[ip] += by
			}
		}
	}
	count(before, -1)
	count(now, 1)
	s, touched := tx.store, map[netip.Addr]bool{}
	if len(old) > 0 && len(r.lost) > 0 {
		r.known = false // a diagnostic may name one of the Services
		tx.note(true)
	}
	for ip, n := range old {
		if r.services[ip] == 0 {
			delete(r.services, ip)
		}
		if (n == 0) == (r.services[ip] == 0) {
			continue
		}
		if s.extras.doubt(ip); s.holders.others(ip, nil) {
			touched[ip] = true
		}
	}
	if len(touched) == 0 && len(s.extras.dirty) == 0 {
		return // the usual case costs no walk over pods
	}
	s.settled = false
	tx.placeAgain(nil, touched)
}

func (s *Service) clusterIPs() []netip.Addr {
	if s == nil {
		return nil
	}
	return s.ClusterIPs
}

// serviceAt names the Service with a cluster address; of several the one with the smallest key.
func (s *Store) serviceAt(ip netip.Addr) string {
	var found *Service
	for v := range s.proxied.services.objects.all() {
		if slices.Contains(v.ClusterIPs, ip) && (found == nil || v.Key.Compare(found.Key) < 0) {
			found = v
		}
	}
	if found == nil {
		return "a Service"
	}
	return "Service " + found.Key.String()
}
