// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"net/netip"
	"strings"
)

// parseCIDR reads a CIDR as the API server does. usual is false where the API server accepts a text
// that other programs refuse or read differently (ADR 0020):
//
//   - leading zeros, which mean nothing: 010.0.0.0/08 is 10.0.0.0/8;
//   - IPv4 written as IPv6: ::ffff:10.0.0.0/104 is 10.0.0.0/8. A length that
//     ends before the IPv4 part, or bits after it, are an error here: the API
//     server makes a range of it that cannot have been meant.
func parseCIDR(text string) (p netip.Prefix, usual bool, err error) {
	if p, err = netip.ParsePrefix(text); err == nil && !p.Addr().Is4In6() {
		return p, true, nil
	}
	if p, err = netip.ParsePrefix(withoutZeros(text)); err != nil || !p.Addr().Is4In6() {
		return p, false, err
	}
	const before = 128 - 32
	if p.Bits() < before || p != p.Masked() {
		return netip.Prefix{}, false, errors.New("IPv4 written as IPv6, and the length does not fit")
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-before), false, nil
}

// withoutZeros removes the leading zeros of every number.
func withoutZeros(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		end := strings.IndexAny(text, ".:/")
		if end < 0 {
			end = len(text)
		}
		number := text[:end]
		if short := strings.TrimLeft(number, "0"); short != "" || number == "" {
			b.WriteString(short)
		} else {
			b.WriteByte('0')
		}
		if end < len(text) {
			b.WriteByte(text[end])
			end++
		}
		text = text[end:]
	}
	return b.String()
}
