// SPDX-License-Identifier: Apache-2.0

// Package connect holds the questions that a probe in a pod sends and the form of its answers:
// kubectl podwall writes the questions and reads the answers, podwall-agent --connect sends. It
// also says what an answer proves about the packet. It opens no socket: connect/socket does.
package connect

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
)

const (
	// MaxTargets is how many targets one probe has: their answers fit into what a kubelet keeps
	// of a container's termination message, also where the pod has twenty containers.
	MaxTargets = 32
	// Schema names the form of a Report.
	Schema = "podwall.connect/v1"
	// maxDetail is the length of a detail.
	maxDetail = 200
)

// Target is where one packet is sent. The zero value is none.
type Target struct {
	Protocol inet.Protocol
	To       netip.AddrPort
}

// String returns the form that ParseTargets reads.
func (t Target) String() string { return t.Protocol.String() + "/" + t.To.String() }

// check says why nothing can be sent to a target.
func (t Target) check() error {
	switch a := t.To.Addr(); {
	case !t.Protocol.HasPorts():
		return fmt.Errorf("%s has ports for no probe; write tcp, udp or sctp", t.Protocol)
	case !t.To.IsValid() || t.To.Port() == 0:
		return fmt.Errorf("%q has no address and port; write for example tcp/10.0.0.5:80", t)
	case a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast():
		return fmt.Errorf("%s is the address of no single end", a)
	}
	return nil
}

// FormatTargets returns the form that ParseTargets reads.
func FormatTargets(list []Target) string {
	words := make([]string, len(list))
	for i, t := range list {
		words[i] = t.String()
	}
	return strings.Join(words, ",")
}

// ParseTargets reads targets with commas between them, such as tcp/10.0.0.5:80,udp/[fd00::1]:53:
// at least one and at most MaxTargets.
func ParseTargets(text string) (list []Target, err error) {
	for word := range strings.SplitSeq(text, ",") {
		t, err := parseTarget(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, checkCount(len(list))
}

func checkCount(n int) error {
	if n == 0 || n > MaxTargets {
		return fmt.Errorf("%d targets; write 1 to %d", n, MaxTargets)
	}
	return nil
}

func parseTarget(word string) (t Target, err error) {
	protocol, to, _ := strings.Cut(word, "/")
	for _, p := range []inet.Protocol{inet.TCP, inet.UDP, inet.SCTP} {
		if p.String() == protocol {
			t.Protocol = p
		}
	}
	if t.To, err = netip.ParseAddrPort(to); err != nil || t.Protocol == 0 {
		return t, fmt.Errorf("%q is no target; write for example tcp/10.0.0.5:80 or udp/[fd00::1]:53", word)
	}
	return t, t.check()
}

// Outcome is what came back for a packet.
type Outcome string

// The outcomes.
const (
	// Connected is a TCP connection or an SCTP association.
	Connected Outcome = "connected"
	// Answered is a UDP datagram that came back.
	Answered Outcome = "answered"
	// Refused is a TCP reset, an SCTP abort, or for UDP an ICMP error "port unreachable" from the
	// destination's own address: a kernel without a listener sends them.
	Refused Outcome = "refused"
	// Silent is nothing in the time that was given.
	Silent Outcome = "silent"
	// Rejected is an ICMP error of a firewall on the way.
	Rejected Outcome = "rejected"
	// Unreachable is that there is no route, or no neighbour.
	Unreachable Outcome = "unreachable"
	// Unsupported is a kernel without the protocol.
	Unsupported Outcome = "unsupported"
	// Failed is any other error of a socket; a detail has it.
	Failed Outcome = "failed"
)

// Outcomes returns all outcomes.
func Outcomes() []Outcome {
	return []Outcome{Connected, Answered, Refused, Silent, Rejected, Unreachable, Unsupported, Failed}
}

// Verdict is what an outcome proves about the packet.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota
	Arrived
	Dropped
)

// Verdict says what the outcome proves. Silence proves nothing for UDP, whose servers need not
// answer. An error of routing or of the socket proves nothing about policies.
func (o Outcome) Verdict(p inet.Protocol) Verdict {
	switch {
	case o == Connected, o == Answered, o == Refused:
		return Arrived
	case o == Rejected, o == Silent && p != inet.UDP:
		return Dropped
	}
	return Unknown
}

// Report is what a probe found out.
type Report struct {
	Schema string `json:"schema"`
	// Seconds is how long an answer was waited for.
	Seconds int `json:"seconds"`
	// Answers has one outcome for each target, in their order.
	Answers []Outcome `json:"answers"`
	// Detail is the error of the first target that failed.
	Detail string `json:"detail,omitempty"`
}

// Line returns the report as one line of JSON.
func (r Report) Line() ([]byte, error) {
	r.Schema = Schema
	r.bound()
	line, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("writing the answers: %w", err)
	}
	return append(line, '\n'), nil
}

// ErrNoReport is about a text that is no report of a probe.
var ErrNoReport = errors.New("no answer of podwall-agent --connect")

// ReadReport reads the report of a probe with so many targets. It is written in a pod, so it is
// not trusted to be one.
func ReadReport(text string, targets int) (r Report, err error) {
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrNoReport, err)
	}
	switch {
	case r.Schema != Schema:
		return Report{}, fmt.Errorf("%w: its form is %q, want %q", ErrNoReport, r.Schema, Schema)
	case len(r.Answers) != targets:
		return Report{}, fmt.Errorf("%w: it has %d answers to %d questions", ErrNoReport, len(r.Answers), targets)
	}
	for _, o := range r.Answers {
		if !slices.Contains(Outcomes(), o) {
			return Report{}, fmt.Errorf("%w: %q is no answer", ErrNoReport, o)
		}
	}
	r.bound()
	return r, nil
}

// bound cuts a long detail.
func (r *Report) bound() {
	if len(r.Detail) > maxDetail {
		r.Detail = strings.ToValidUTF8(r.Detail[:maxDetail], "")
	}
}
