// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/inet"
)

func TestTargetsAreReadAsTheyAreWritten(t *testing.T) {
	const text = "tcp/10.0.0.5:80,udp/[fd00::1]:53,sctp/10.0.0.5:7"
	list, err := ParseTargets(text)
	if err != nil || FormatTargets(list) != text {
		t.Fatalf("%v, %v", list, err)
	}
	if want := (Target{inet.UDP, netip.MustParseAddrPort("[fd00::1]:53")}); list[1] != want {
		t.Errorf("%v, want %v", list[1], want)
	}
}

func TestWrongTargetsAreRefused(t *testing.T) {
	most := strings.TrimSuffix(strings.Repeat("tcp/10.0.0.5:80,", MaxTargets), ",")
	if list, err := ParseTargets(most); err != nil || len(list) != MaxTargets {
		t.Errorf("%d targets: %v", len(list), err)
	}
	for text, want := range map[string]string{
		"":                        `"" is no target`,
		"tcp/10.0.0.5:80,":        `"" is no target`,
		"10.0.0.5:80":             "is no target; write for example tcp/10.0.0.5:80",
		"icmp/10.0.0.5:80":        "is no target",
		"tcp/web:80":              "is no target",
		"tcp/10.0.0.5:0":          "has no address and port",
		"tcp/10.0.0.5":            "is no target",
		"tcp/[::ffff:10.0.0.5]:8": "is the address of no single end",
		"tcp/[fe80::1%eth0]:8":    "is the address of no single end",
		"udp/224.0.0.1:8":         "is the address of no single end",
		"tcp/0.0.0.0:8":           "is the address of no single end",
		most + ",tcp/10.0.0.5:80": "33 targets; write 1 to 32",
	} {
		if _, err := ParseTargets(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestWhatAnAnswerProves(t *testing.T) {
	for o, want := range map[Outcome]Verdict{Connected: Arrived, Refused: Arrived, Silent: Dropped, Rejected: Dropped,
		Answered: Arrived, Unreachable: Unknown, Unsupported: Unknown, Failed: Unknown} {
		if got := o.Verdict(inet.TCP); got != want {
			t.Errorf("TCP, %s: %v, want %v", o, got, want)
		}
		if o == Silent {
			want = Unknown // a server need not answer
		}
		if got := o.Verdict(inet.UDP); got != want {
			t.Errorf("UDP, %s: %v, want %v", o, got, want)
		}
	}
	if Outcome("").Verdict(inet.TCP) != Unknown || len(Outcomes()) != 8 {
		t.Error("an outcome that is none proves something")
	}
}

func TestReportsAreReadAsTheyAreWritten(t *testing.T) {
	line, err := Report{Seconds: 5, Answers: []Outcome{Connected, Silent}, Detail: strings.Repeat("ä", maxDetail)}.Line()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ReadReport(string(line), 2)
	if err != nil || r.Seconds != 5 || !slices.Equal(r.Answers, []Outcome{Connected, Silent}) || len(r.Detail) != maxDetail {
		t.Errorf("%+v, %v", r, err)
	}
	// The largest one fits into the messages of a pod with twenty containers: 12 KiB for all of them.
	all := Report{Seconds: 5, Detail: strings.Repeat("x", maxDetail)}
	for range MaxTargets {
		all.Answers = append(all.Answers, Unsupported)
	}
	all.Detail = ""
	if line, err := all.Line(); err != nil || len(line) > 12<<10/20 {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}

func TestWhatIsNoReportIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"": "unexpected end", "unknown flag --connect": "invalid character",
		`{"schema":"podwall.connect/v2","answers":["silent"]}`:           `its form is "podwall.connect/v2"`,
		`{"schema":"podwall.connect/v1","answers":[]}`:                   "it has 0 answers to 1 questions",
		`{"schema":"podwall.connect/v1","answers":["silent","silent"]}`:  "it has 2 answers to 1 questions",
		`{"schema":"podwall.connect/v1","answers":["\u001b[2J"]}`:        `"\x1b[2J" is no answer`,
		`{"schema":"podwall.connect/v1","seconds":5,"answers":["silent"`: "unexpected end",
	} {
		if _, err := ReadReport(text, 1); !errors.Is(err, ErrNoReport) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	long := `{"schema":"podwall.connect/v1","answers":["failed"],"detail":"` + strings.Repeat("x", 4000) + `"}`
	if r, err := ReadReport(long, 1); err != nil || len(r.Detail) != maxDetail {
		t.Errorf("%d bytes of detail, %v", len(r.Detail), err)
	}
}
