// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Groups lists where the datapath drops traffic to more than one receiver: on bridges with a pod
// that is isolated for ingress. The program does not know bridges. The zero value is nowhere.
type Groups struct {
	// Closed are the local pods on such bridges.
	Closed map[netip.Addr]bool
	// Broadcasts are the broadcast addresses of the node's networks.
	Broadcasts []netip.Addr
}

// WithGroups returns a judge that also ends connections to a group, or to a broadcast address, on a
// closed bridge. For a link-local source the bridge is not known. Its connections end wherever they
// are; where they are allowed, the next packet begins a new one and is not lost.
func (j *Judge) WithGroups(g Groups) *Judge {
	with := *j
	with.closed, with.broadcasts = g.Closed, make(map[netip.Addr]bool, len(g.Broadcasts))
	for _, a := range g.Broadcasts {
		with.broadcasts[a] = true
	}
	return &with
}

// group judges connections to more than one receiver. They have no replying end.
func (j *Judge) group(e *inet.Connection, f program.Flow, client, server *end) (Cut, bool) {
	switch {
	case len(j.closed) == 0 || server != nil || !j.toGroup(f.Dst):
		return Cut{}, false
	case j.node[f.Src]: // not policed
		return Cut{}, false
	case client != nil && !j.closed[f.Src]:
		return Cut{}, false
	case client == nil && !f.Src.IsLinkLocalUnicast() && !f.Src.IsUnspecified():
		return Cut{}, false // no pod's, and the rules let no other source send onto such a bridge
	}
	f.FromNode, f.ToNode = false, j.node[f.Dst]
	c := Cut{Entry: *e, Reason: Ingress, Addr: f.Dst, Flow: f}
	if client != nil {
		c.Tenant = client.tenant
	}
	return c, true
}

func (j *Judge) toGroup(a netip.Addr) bool {
	return a.IsMulticast() || a == limited || j.broadcasts[a]
}

// limited is the broadcast address of whatever link it is used on.
var limited = netip.AddrFrom4([4]byte{255, 255, 255, 255})
