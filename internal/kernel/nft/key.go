// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/inet"
)

// bytes returns the key in the kernel's encoding: parts are padded to four bytes.
func (k KeyType) bytes(key Key) []byte { return k.append(make([]byte, 0, k.length()), key) }

// append appends the encoded key.
func (k KeyType) append(b []byte, key Key) []byte {
	switch k {
	case Pair4, Pair6:
		return appendAddr(appendAddr(b, key.Addr), key.Addr)
	case Addr4Port, Addr6Port:
		return appendPort(appendAddr(b, key.Addr), key.Port)
	case ProtocolPort:
		return appendFront(b, key.Element)
	case Front4, Front6:
		return appendFront(appendAddr(b, key.Addr), key.Element)
	case Slot4, Slot6:
		return appendNumber(appendFront(appendAddr(b, key.Addr), key.Element), key.Slot)
	case PortSlot:
		return appendNumber(appendFront(b, key.Element), key.Slot)
	case Port:
		return binary.BigEndian.AppendUint16(b, key.Element.Port)
	case Interface:
		return appendName(b, key.Iface)
	case InterfaceAddr4, InterfaceAddr6:
		return appendAddr(appendName(b, key.Iface), key.Addr)
	case Hardware:
		return append(b, key.Hardware[:]...)
	case InterfaceHardware:
		return appendHardware(appendName(b, key.Iface), key.Hardware)
	case InterfaceHardwareAddr4, InterfaceHardwareAddr6:
		return appendAddr(appendHardware(appendName(b, key.Iface), key.Hardware), key.Addr)
	case Flow4, Flow6:
		b = appendPort(appendAddr(b, key.Addr), key.Port)
		return appendPort(appendAddr(b, key.Dst.Addr()), key.Dst.Port())
	}
	return appendAddr(b, key.Addr)
}

func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return b
	case a.Is4():
		four := a.As4()
		return append(b, four[:]...)
	}
	sixteen := a.As16()
	return append(b, sixteen[:]...)
}

func appendPort(b []byte, port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(b, port), 0, 0)
}

// appendFront appends protocol and port.
func appendFront(b []byte, e inet.Element) []byte {
	return appendPort(append(b, byte(e.Protocol), 0, 0, 0), e.Port)
}

// appendNumber appends a number as a rule makes it: in the host's byte order.
func appendNumber(b []byte, n uint16) []byte { return binary.NativeEndian.AppendUint32(b, uint32(n)) }

func appendHardware(b []byte, h inet.Hardware) []byte { return append(append(b, h[:]...), 0, 0) }

// appendName appends an interface name in the kernel's encoding, padded with zeros.
func appendName(b []byte, name string) []byte {
	var padded [interfaceName]byte
	copy(padded[:], name)
	return append(b, padded[:]...)
}

// interfaceName is the length of an encoded interface name.
const interfaceName = 16

const lastKeyType = PortSlot

// length is the number of bytes of a key; 0 if k is no key type.
func (k KeyType) length() int {
	return [lastKeyType + 1]int{Addr4: 4, Addr6: 16, Pair4: 8, Pair6: 32, Addr4Port: 8, Addr6Port: 20,
		ProtocolPort: 8, Port: 2,
		Interface: 16, InterfaceAddr4: 20, InterfaceAddr6: 32, Flow4: 16, Flow6: 40,
		Hardware: 6, InterfaceHardware: 24, InterfaceHardwareAddr4: 28, InterfaceHardwareAddr6: 40,
		Front4: 12, Front6: 24, Slot4: 16, Slot6: 28, PortSlot: 12}[k]
}

// parse is the reverse of bytes. ok is false for keys that bytes never writes: a pair of two addresses,
// padding that is not zero, or an empty key, which is the kernel's catch-all element. It allocates only for
// interface names.
func (k KeyType) parse(b []byte) (key Key, ok bool) {
	if len(b) != k.length() {
		return Key{}, false
	}
	key = k.fields(b)
	var again [40]byte
	return key, bytes.Equal(k.append(again[:0], key), b)
}

// fields decodes a key of the right length.
func (k KeyType) fields(b []byte) (key Key) {
	switch k {
	case Slot4, Slot6, PortSlot:
		key.Slot = uint16(binary.NativeEndian.Uint32(b[len(b)-4:]))
		b = b[:len(b)-4]
	}
	switch k {
	case ProtocolPort, PortSlot:
		key.Protocol, key.Port = inet.Protocol(b[0]), binary.BigEndian.Uint16(b[4:])
		return key
	case Front4, Front6, Slot4, Slot6:
		end := b[len(b)-8:]
		key.Protocol, key.Port = inet.Protocol(end[0]), binary.BigEndian.Uint16(end[4:])
		b = b[:len(b)-8]
	case Port:
		key.Element.Port = binary.BigEndian.Uint16(b)
		return key
	case Interface:
		key.Iface = string(bytes.TrimRight(b, "\x00"))
		return key
	case InterfaceAddr4, InterfaceAddr6:
		key.Iface = string(bytes.TrimRight(b[:interfaceName], "\x00"))
		b = b[interfaceName:]
	case Hardware:
		key.Hardware = inet.Hardware(b)
		return key
	case InterfaceHardware, InterfaceHardwareAddr4, InterfaceHardwareAddr6:
		key.Iface = string(bytes.TrimRight(b[:interfaceName], "\x00"))
		key.Hardware = inet.Hardware(b[interfaceName : interfaceName+6])
		if b = b[interfaceName+8:]; len(b) == 0 {
			return key
		}
	case Addr4Port, Addr6Port:
		key.Port = binary.BigEndian.Uint16(b[len(b)-4:])
		b = b[:len(b)-4]
	case Pair4, Pair6:
		b = b[:len(b)/2]
	case Flow4, Flow6:
		end := b[len(b)/2:]
		b = b[:len(b)/2]
		key.Port = binary.BigEndian.Uint16(b[len(b)-4:])
		to, _ := netip.AddrFromSlice(end[:len(end)-4])
		key.Dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(end[len(end)-4:]))
		b = b[:len(b)-4]
	}
	key.Addr, _ = netip.AddrFromSlice(b)
	return key
}

func (k KeyType) datatype() nftables.SetDatatype {
	return [...]nftables.SetDatatype{
		Addr4: nftables.TypeIPAddr, Addr6: nftables.TypeIP6Addr,
		Pair4:          nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr),
		Pair6:          nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIP6Addr),
		Addr4Port:      nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
		Addr6Port:      nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService),
		ProtocolPort:   nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		Port:           nftables.TypeInetService,
		Interface:      nftables.TypeIFName,
		InterfaceAddr4: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr),
		InterfaceAddr6: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr),
		Flow4: nftables.MustConcatSetType(
			nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService),
		Flow6: nftables.MustConcatSetType(
			nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr, nftables.TypeInetService),

		Hardware:          nftables.TypeEtherAddr,
		InterfaceHardware: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr),
		InterfaceHardwareAddr4: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr,
			nftables.TypeIPAddr),
		InterfaceHardwareAddr6: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr,
			nftables.TypeIP6Addr),

		Front4: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
		Front6: nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService),
		Slot4: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService,
			nftables.TypeInteger),
		Slot6: nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService,
			nftables.TypeInteger),
		PortSlot: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeInteger),
	}[k]
}

// keyType returns the key type of a set; ok is false if it is none of ours.
func keyType(t nftables.SetDatatype) (KeyType, bool) {
	for k := Addr4; k <= lastKeyType; k++ {
		if own := k.datatype(); own.GetNFTMagic() == t.GetNFTMagic() {
			return k, true
		}
	}
	return 0, false
}

// next returns the address or port after e, as the end of an interval; ok is false if e is the last one.
func (k KeyType) next(e inet.Element) (after inet.Element, ok bool) {
	if k == Port {
		return inet.Element{Port: e.Port + 1}, e.Port != 1<<16-1
	}
	after.Addr = e.Addr.Next()
	return after, after.Addr.IsValid()
}

// previous is the reverse of next.
func (k KeyType) previous(e inet.Element) inet.Element {
	if k == Port {
		return inet.Element{Port: e.Port - 1}
	}
	return inet.Element{Addr: e.Addr.Prev()}
}

// first returns the first address or port of the key type.
func (k KeyType) first() inet.Element {
	switch k {
	case Port:
		return inet.Element{}
	case Addr4:
		return inet.Element{Addr: netip.IPv4Unspecified()}
	}
	return inet.Element{Addr: netip.IPv6Unspecified()}
}

// last returns the last address or port of the key type.
func (k KeyType) last() inet.Element {
	switch k {
	case Port:
		return inet.Element{Port: 1<<16 - 1}
	case Addr4:
		return inet.Element{Addr: inet.LastAddr(netip.PrefixFrom(netip.IPv4Unspecified(), 0))}
	}
	return inet.Element{Addr: inet.LastAddr(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
}
