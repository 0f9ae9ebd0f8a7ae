// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// extra reads the annotation with which a pod requests extra addresses: IP addresses and hardware
// addresses, separated by commas.
func extra(text string) *cluster.Extra {
	if text == "" {
		return nil
	}
	e := &cluster.Extra{}
	read := 0
	for entry := range strings.SplitSeq(text, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if read++; read > cluster.MaxExtra {
			e.Unread = append(e.Unread, fmt.Sprintf("more than %d entries, the rest is not read", cluster.MaxExtra))
			break
		}
		if why := addExtra(e, entry); why != "" {
			e.Unread = append(e.Unread, why)
		}
	}
	if read == 0 {
		return nil
	}
	return e
}

// addExtra adds an entry, or returns why it cannot.
func addExtra(e *cluster.Extra, entry string) string {
	if h, ok := inet.ParseHardware(entry); ok {
		if !slices.Contains(e.Hardware, h) {
			e.Hardware = append(e.Hardware, h)
		}
		return ""
	}
	a, err := netip.ParseAddr(entry)
	if err != nil || a.Zone() != "" {
		return fmt.Sprintf("%.40q is no address and no hardware address", entry)
	}
	if a = a.Unmap(); !slices.Contains(e.Addrs, a) {
		e.Addrs = append(e.Addrs, a)
	}
	return ""
}
