// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/sysctl"
)

// A bridge forwards between its ports below the IP layer. br_netfilter passes its packets to the IP hooks
// only where that is enabled: for the whole network namespace by sysctl, or per bridge, which we use. The
// sysctl file exists once br_netfilter is loaded.
const (
	sysctlLoaded = "net/bridge/bridge-nf-call-iptables"
	sysctlVLAN   = "net/bridge/bridge-nf-filter-vlan-tagged"
)

// noLinkLocalLearn is a bit of IFLA_BR_MULTI_BOOLOPT (BR_BOOLOPT_NO_LL_LEARN, kernel 5.0).
const noLinkLocalLearn = 1

// ErrNoBridgeFilter means that the kernel cannot pass bridged packets to the IP hooks.
var ErrNoBridgeFilter = errors.New("br_netfilter is not loaded")

// Bridged holds the settings that decide whether the IP hooks see the packets that a bridge forwards, and
// from which frames it learns. A frame to the bridge's reserved group addresses (01:80:c2:00:00:00 to 0f)
// enters no chain, but the bridge learns its source address unless that is disabled.
type Bridged struct{ IPv4, IPv6, NoLinkLocalLearn bool }

// All reports whether all that enforcement needs is enabled.
func (b Bridged) All() bool { return b.IPv4 && b.IPv6 && b.NoLinkLocalLearn }

// String is the form that the agent stores, for ParseBridged.
func (b Bridged) String() string {
	return fmt.Sprintf("nf_call_iptables=%d nf_call_ip6tables=%d no_linklocal_learn=%d",
		bit(b.IPv4), bit(b.IPv6), bit(b.NoLinkLocalLearn))
}

// ParseBridged reads what String wrote.
func ParseBridged(s string) (Bridged, error) {
	var v4, v6, learn int
	if n, err := fmt.Sscanf(s, "nf_call_iptables=%d nf_call_ip6tables=%d no_linklocal_learn=%d", &v4, &v6,
		&learn); n < 2 {
		return Bridged{}, fmt.Errorf("parsing bridge settings %q: %w", s, err)
	} // the third is missing in settings stored before 2026-11-29, when it was not changed
	return Bridged{v4 == 1, v6 == 1, learn == 1}, nil
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// ReadBridge returns the settings of a bridge.
func ReadBridge(index int) (Bridged, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	replies, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return Bridged{}, fmt.Errorf("reading bridge settings: %w", err)
	}
	var b Bridged
	for _, r := range replies {
		data, err := bridgeData(r[unix.SizeofIfInfomsg:])
		if err != nil {
			return Bridged{}, fmt.Errorf("parsing bridge settings: %w", err)
		}
		for _, a := range data {
			switch a.Attr.Type {
			case unix.IFLA_BR_NF_CALL_IPTABLES:
				b.IPv4 = len(a.Value) > 0 && a.Value[0] == 1
			case unix.IFLA_BR_NF_CALL_IP6TABLES:
				b.IPv6 = len(a.Value) > 0 && a.Value[0] == 1
			case unix.IFLA_BR_MULTI_BOOLOPT:
				b.NoLinkLocalLearn = word(a.Value)&noLinkLocalLearn != 0
			}
		}
	}
	return b, nil
}

// bridgeData returns the bridge-specific attributes.
func bridgeData(message []byte) ([]syscall.NetlinkRouteAttr, error) {
	data := message
	for _, want := range []uint16{unix.IFLA_LINKINFO, unix.IFLA_INFO_DATA} {
		attrs, err := nl.ParseRouteAttr(data)
		if err != nil {
			return nil, err
		}
		data = nil
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED == want {
				data = a.Value
			}
		}
	}
	return nl.ParseRouteAttr(data)
}

// SetBridge writes the settings of a bridge and changes nothing else.
func SetBridge(index int, b Bridged) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_BR_NF_CALL_IPTABLES, []byte{bit(b.IPv4)})
	data.AddRtAttr(unix.IFLA_BR_NF_CALL_IP6TABLES, []byte{bit(b.IPv6)})
	learn := binary.NativeEndian.AppendUint32(nil, uint32(bit(b.NoLinkLocalLearn))*noLinkLocalLearn)
	learn = binary.NativeEndian.AppendUint32(learn, noLinkLocalLearn) // the mask follows the value
	data.AddRtAttr(unix.IFLA_BR_MULTI_BOOLOPT, learn)
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("writing bridge settings: %w", err)
	}
	return nil
}

// EnforceBridge makes the bridge pass its packets to the IP hooks, and returns the former settings.
func EnforceBridge(s sysctl.Dir, index int) (found Bridged, err error) {
	if !s.Has(sysctlLoaded) {
		return Bridged{}, ErrNoBridgeFilter
	}
	found, err = ReadBridge(index)
	if err != nil || found.All() {
		return found, err
	}
	return found, SetBridge(index, Bridged{true, true, true})
}

// FilterVLAN makes bridges pass VLAN-tagged frames to the IP hooks too, and returns the former setting.
// Without it a frame tagged with VLAN 0, which every receiver treats as untagged, bypasses the hooks.
func FilterVLAN(s sysctl.Dir) (was bool, err error) {
	if was, err = ReadVLAN(s); err != nil || was {
		return was, err
	}
	return false, SetVLAN(s, true)
}

// ReadVLAN returns whether bridges pass VLAN-tagged frames to the IP hooks.
func ReadVLAN(s sysctl.Dir) (bool, error) {
	value, err := s.Read(sysctlVLAN)
	return value == "1", err
}

// SetVLAN writes that setting, which netlink does not offer.
func SetVLAN(s sysctl.Dir, on bool) error { return s.Write(sysctlVLAN, strconv.Itoa(int(bit(on)))) }

// IndexOf returns the index of an interface, or 0 if there is none.
func IndexOf(name string) int {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0
	}
	return link.Attrs().Index
}

// BridgeName returns the name of a bridge; ok is false if no interface has the index or it is not a bridge.
func BridgeName(index int) (name string, ok bool) {
	link, err := netlink.LinkByIndex(index)
	if err != nil || link.Type() != "bridge" {
		return "", false
	}
	return link.Attrs().Name, true
}

// BridgeIndex returns the index of a bridge; ok is false if no interface has the name or it is not a
// bridge.
func BridgeIndex(name string) (index int, ok bool) {
	link, err := netlink.LinkByName(name)
	if err != nil || link.Type() != "bridge" {
		return 0, false
	}
	return link.Attrs().Index, true
}
