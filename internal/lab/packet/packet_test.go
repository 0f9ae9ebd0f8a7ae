// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab/packet"
)

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestParseReadsWhatBytesWrote(t *testing.T) {
	for _, ends := range [][2]string{{"10.244.1.5", "10.244.2.6"}, {"fd00::5", "fd00::6"}} {
		for _, want := range []packet.Packet{
			{Proto: packet.TCP, SrcPort: 1025, DstPort: 80, Flags: packet.SYN | packet.ACK, Seq: 7, Ack: 8, Window: 9},
			{Proto: packet.UDP, SrcPort: 1025, DstPort: 53, Payload: []byte("abc")},
			{Proto: packet.SCTP, SrcPort: 1025, DstPort: 9, Seq: 77, Credit: 99},
			{Proto: packet.ICMP, SrcPort: 4, DstPort: 5, Payload: []byte("12345678")},
		} {
			want.Src, want.Dst = netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
			padded := append(want.Bytes(), 0, 0, 0, 0) // as Ethernet pads short frames
			got, _, ok := packet.Parse(padded)
			if diff := cmp.Diff(want, got, addrs); diff != "" || !ok {
				t.Errorf("%s %s: ok %v (-want +got):\n%s", want.Proto, want.Dst, ok, diff)
			}
		}
	}
}

func TestParseNeverPanicsOnWhatIsCutShort(t *testing.T) {
	for _, proto := range packet.Protocols {
		for _, a := range []string{"10.0.0.1", "fd00::1"} {
			p := packet.Packet{Proto: proto, Src: netip.MustParseAddr(a), Dst: netip.MustParseAddr(a)}
			whole := p.Bytes()
			for n := range whole {
				packet.Parse(whole[:n])
			}
			if _, _, ok := packet.Parse(whole[:21]); ok {
				t.Errorf("%s %s: a packet of 21 bytes was taken", proto, a)
			}
		}
	}
}

// The bytes are worked out by hand from RFC 791 and RFC 768: header sum of
// 4500 001c 0000 0000 4011 .. 0a00 0001 0a00 0002, datagram without data.
func TestChecksumsAreThoseOfTheRFCs(t *testing.T) {
	p := packet.Packet{Proto: packet.UDP, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), SrcPort: 1, DstPort: 2}
	want := "4500001c00000000401166cf0a0000010a000002000100020008ebd8"
	if got := hex.EncodeToString(p.Bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	p.BadChecksum = true
	if got := hex.EncodeToString(p.Bytes()); got[:52] != want[:52] || got == want {
		t.Errorf("a bad checksum must differ in the last two bytes only: %s", got)
	}
}

func TestEthernetWritesTags(t *testing.T) {
	a, b := net.HardwareAddr{1, 2, 3, 4, 5, 6}, net.HardwareAddr{7, 8, 9, 10, 11, 12}
	got := hex.EncodeToString(packet.Ethernet(a, b, []uint16{0, 5}, []byte{0x60}))
	if want := "0102030405060708090a0b0c" + "81000000" + "81000005" + "86dd" + "60"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
