// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// forget empties the connection tables of the nodes, so that each turn begins
// with the same.
func (s *stage) forget() error {
	return s.tables(func(_ string, h *netlink.Handle) error {
		return h.ConntrackTableFlush(netlink.ConntrackTable)
	})
}

// openConnections are the client's connections that have not ended, as the nodes see
// them: with both directions, so with the pod that was chosen, and the state.
func (s *stage) openConnections() (list []string, err error) {
	err = s.tables(func(node string, h *netlink.Handle) error {
		flows, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range flows {
			info, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP)
			if ok && f.Forward.SrcIP.Equal(s.client.Addrs[0].AsSlice()) && !ended(info.State) {
				list = append(list, fmt.Sprintf("%s, state %d: %s", node, info.State, strings.TrimSpace(f.String())))
			}
		}
		return err
	})
	return list, err
}

// ended reports whether a state of the kernel's connection tracking comes after the last
// packet: TIME_WAIT and CLOSE (enum tcp_conntrack).
func ended(state uint8) bool { return state == 7 || state == 8 }

// tables calls do with the connection table of each node.
func (s *stage) tables(do func(node string, h *netlink.Handle) error) error {
	for _, node := range realNodes() {
		h, err := netlink.NewHandleAt(vnetns.NsHandle(s.bed.Node(node).NS.FD()), unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("opening the connection table of %s: %w", node, err)
		}
		err = do(node, h)
		h.Close()
		if err != nil {
			return fmt.Errorf("the connection table of %s: %w", node, err)
		}
	}
	return nil
}
