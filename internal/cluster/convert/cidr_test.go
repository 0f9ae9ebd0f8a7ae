// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
)

// TestCIDRsAreReadAsTheAPIServerReadsThem: what is read has the meaning that the
// API server names in its warning, and what is refused is what it refuses, or IPv4
// written as IPv6 with a length that does not fit.
func TestCIDRsAreReadAsTheAPIServerReadsThem(t *testing.T) {
	number := rapid.SampledFrom([]string{"0", "1", "8", "10", "010", "08", "0012", "255", "256", "00", "", "a", "+1",
		"1 "})
	group := rapid.SampledFrom([]string{"", "", "0", "ffff", "0ffff", "0db8", "00db8", "a", "fe80", "10.0.0.0",
		"010.1.0.0"})
	length := rapid.SampledFrom([]string{"/0", "/8", "/08", "/24", "/32", "/33", "/95", "/96", "/104", "/112", "/128",
		"/129", "", "/", "/+8"})
	rapid.Check(t, func(t *rapid.T) {
		var text string
		switch rapid.IntRange(0, 2).Draw(t, "form") {
		case 0:
			text = strings.Join(rapid.SliceOfN(number, 3, 5).Draw(t, "numbers"), ".")
		case 1:
			text = "::ffff:" + strings.Join(rapid.SliceOfN(number, 4, 4).Draw(t, "numbers"), ".")
		default:
			text = strings.Join(rapid.SliceOfN(group, 2, 8).Draw(t, "groups"), ":")
		}
		text += length.Draw(t, "length")
		p, usual, err := parseCIDR(text)
		want, accepted := asTheAPIServer(text)
		switch mapped := strings.Contains(strings.ToLower(text), "ffff:"); {
		case err != nil && accepted && !mapped:
			t.Fatalf("%q is refused, the API server reads %s", text, want)
		case err != nil && accepted && want.Addr().Is4() && !strings.Contains(doubts(text), "ambiguous"):
			t.Fatalf("%q is refused, the API server reads %s without doubt", text, want)
		case err == nil && !accepted:
			t.Fatalf("%q is read as %s, the API server refuses it", text, p)
		case err == nil && p.Masked() != want:
			t.Fatalf("%q is read as %s, by the API server as %s", text, p.Masked(), want)
		}
		strict := validation.IsValidCIDRForLegacyField(nil, text, true, nil)
		if err == nil && usual && len(strict) > 0 && p == p.Masked() {
			t.Fatalf("%q is read without a warning, but %v", text, strict)
		}
	})
}

var advised = regexp.MustCompile(`is invalid: use "([^"]*)"|canonical format \("([^"]*)"\)|should be "([^"]*)" or`)

func doubts(text string) string {
	return strings.Join(validation.GetWarningsForCIDR(field.NewPath("cidr"), text), " ")
}

// asTheAPIServer returns the meaning that the API server's warning names.
func asTheAPIServer(text string) (netip.Prefix, bool) {
	if len(validation.IsValidCIDRForLegacyField(nil, text, false, nil)) > 0 {
		return netip.Prefix{}, false
	}
	warnings := validation.GetWarningsForCIDR(field.NewPath("cidr"), text)
	if len(warnings) == 0 {
		return netip.MustParsePrefix(text), true
	}
	// Of several warnings the last one is about the whole text.
	m := advised.FindStringSubmatch(warnings[len(warnings)-1])
	return netip.MustParsePrefix(m[1] + m[2] + m[3]), true
}
