// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/netpol/cut"
)

// backlog holds denied connections until they are taken. Each tenant has its own queue, so no tenant delays
// another. The zero value is empty and accepts nothing; limit bounds the sum.
type backlog struct {
	limit  int
	queues map[string][]cut.Cut // by tenant
}

// add appends the connections to their tenants' queues. Above the limit, queues longer than their fair
// share lose their newest entries.
func (b *backlog) add(list []cut.Cut) {
	if b.queues == nil {
		b.queues = map[string][]cut.Cut{}
	}
	for _, c := range list {
		b.queues[c.Tenant] = append(b.queues[c.Tenant], c)
	}
	for tenant, n := range cut.FairShares(b.lengths(), b.limit) {
		b.queues[tenant] = b.queues[tenant][:n]
	}
}

// take removes up to n connections: the oldest of each tenant, in fair shares.
func (b *backlog) take(n int) (list []cut.Cut) {
	shares := cut.FairShares(b.lengths(), n)
	for _, tenant := range slices.Sorted(maps.Keys(shares)) {
		queue, n := b.queues[tenant], shares[tenant]
		list = append(list, queue[:n]...)
		if b.queues[tenant] = queue[n:]; n == len(queue) {
			delete(b.queues, tenant)
		}
	}
	return list
}

func (b *backlog) lengths() map[string]int {
	lengths := make(map[string]int, len(b.queues))
	for tenant, queue := range b.queues {
		lengths[tenant] = len(queue)
	}
	return lengths
}
