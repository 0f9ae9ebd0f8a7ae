// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"

	"github.com/podwall/podwall/internal/filter"
)

// bytes returns the key as the kernel has it: parts are padded to four bytes.
func (k KeyType) bytes(key Key) []byte {
	switch k {
	case Pair4, Pair6:
		return append(key.Addr.AsSlice(), key.Addr.AsSlice()...)
	case Addr4Port, Addr6Port:
		return append(binary.BigEndian.AppendUint16(key.Addr.AsSlice(), key.Port), 0, 0)
	case ProtocolPort:
		return append(binary.BigEndian.AppendUint16([]byte{byte(key.Protocol), 0, 0, 0}, key.Port), 0, 0)
	case Interface:
		return interfaceName(key.Iface)
	case InterfaceAddr4, InterfaceAddr6:
		return append(interfaceName(key.Iface), key.Addr.AsSlice()...)
	case Flow4, Flow6:
		b := append(binary.BigEndian.AppendUint16(key.Addr.AsSlice(), key.Port), 0, 0)
		b = append(b, key.Dst.Addr().AsSlice()...)
		return append(binary.BigEndian.AppendUint16(b, key.Dst.Port()), 0, 0)
	}
	return key.Addr.AsSlice()
}

// interfaceName is how the kernel keeps a name: padded with zeros.
func interfaceName(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

// parse is the reverse of bytes. ok is false for what bytes never writes: a
// pair of two addresses, padding that is not zero, or no key at all, which is
// how the kernel shows the element that matches everything.
func (k KeyType) parse(b []byte) (key Key, ok bool) {
	if len(b) != int(k.datatype().Bytes) {
		return Key{}, false
	}
	key = k.fields(b)
	return key, bytes.Equal(k.bytes(key), b)
}

// fields takes a key of the right length apart.
func (k KeyType) fields(b []byte) (key Key) {
	switch k {
	case ProtocolPort:
		key.Protocol, key.Port = filter.Protocol(b[0]), binary.BigEndian.Uint16(b[4:])
		return key
	case Interface:
		key.Iface = string(bytes.TrimRight(b, "\x00"))
		return key
	case InterfaceAddr4, InterfaceAddr6:
		key.Iface = string(bytes.TrimRight(b[:16], "\x00"))
		b = b[16:]
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
		Interface:      nftables.TypeIFName,
		InterfaceAddr4: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr),
		InterfaceAddr6: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr),
		Flow4:          nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService),
		Flow6:          nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr, nftables.TypeInetService),
	}[k]
}

// keyType finds the type again; ok is false if it is none of ours.
func keyType(t nftables.SetDatatype) (KeyType, bool) {
	for k := Addr4; k <= Flow6; k++ {
		if own := k.datatype(); own.GetNFTMagic() == t.GetNFTMagic() {
			return k, true
		}
	}
	return 0, false
}

// last returns the first address after the prefix; ok is false if there is
// none, because the prefix reaches to the end of the family.
func after(p netip.Prefix) (next netip.Addr, ok bool) {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	a = a.Next()
	return a, a.IsValid()
}
