// SPDX-License-Identifier: Apache-2.0

package inet

import "testing"

func TestHardwareRanges(t *testing.T) {
	for _, tt := range []struct {
		text    string
		in, out string
	}{
		{"52:54:00:00:00:00/24", "52:54:00:ff:ff:ff", "52:54:01:00:00:00"},
		{"52:54:00:00:00:00/25", "52:54:00:7f:00:00", "52:54:00:80:00:00"},
		{"00:00:5E:00:01:00/40", "00:00:5e:00:01:33", "00:00:5e:00:02:33"},
		{"02:00:00:00:00:01", "02:00:00:00:00:01", "02:00:00:00:00:00"},
		{"40:00:00:00:00:00/2", "7e:00:00:00:00:00", "82:00:00:00:00:00"},
	} {
		r, ok := ParseHardwareRange(tt.text)
		in, _ := ParseHardware(tt.in)
		out, _ := ParseHardware(tt.out)
		if !ok || !r.Contains(in) || r.Contains(out) {
			t.Errorf("%s is read as %s (%t), has %s: %t, %s: %t", tt.text, r, ok, in, r.Contains(in), out,
				r.Contains(out))
		}
		if again, ok := ParseHardwareRange(r.String()); !ok || again != r {
			t.Errorf("%s is read again as %s", r, again)
		}
	}
	for _, text := range []string{"", "52:54:00:00:00", "52-54-00-00-00-00", "52:54:00:00:00:00/0",
		"52:54:00:00:00:00/49", "52:54:00:00:00:00/x",
		"01:00:5e:00:00:00/24", "00:00:00:00:00:00/8", "5g:54:00:00:00:00", "52:54:00:00:00:00:00", "+2:54:00:00:00:00",
		"52:54:00:12:34:56/24", "52:54:00:00:00:00/+24", "52:54:00:00:00:00/024"} {
		if r, ok := ParseHardwareRange(text); ok {
			t.Errorf("%q is read as %s", text, r)
		}
	}
	if (HardwareRange{}).Contains(Hardware{2}) {
		t.Error("the zero value has addresses")
	}
}
