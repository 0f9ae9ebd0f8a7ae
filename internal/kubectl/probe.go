// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/source/manifest"
)

// probe is what packets said that podwall-lab sent on this machine's kernel, or a container in a pod.
type probe struct {
	// Differs is true if a packet met another verdict than was explained.
	Differs bool `json:"differs"`
	// Pod and Container are those that sent, of a cluster.
	Pod       string       `json:"pod,omitempty"`
	Container string       `json:"container,omitempty"`
	Packets   []probedPath `json:"packets"`
}

type probedPath struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Family      string `json:"family"`
	// Verdict is "arrived", "was dropped" or "is unknown".
	Verdict string `json:"verdict"`
	Agrees  bool   `json:"agrees"`
	// Protocol, Address and Answer say what was sent, and what came back, of a cluster.
	Protocol string          `json:"protocol,omitempty"`
	Address  string          `json:"address,omitempty"`
	Answer   connect.Outcome `json:"answer,omitempty"`

	text string // of a packet of a cluster
}

// unknown reports whether the verdict on a packet is not known.
func (p *probe) unknown() bool {
	return p != nil && slices.ContainsFunc(p.Packets, func(path probedPath) bool { return path.Verdict == isUnknown })
}

// isUnknown is the verdict on a packet if it is not known.
const isUnknown = "is unknown"

// String returns one line for people.
func (p *probe) String() string {
	var list []string
	for _, path := range p.Packets {
		if path.text != "" {
			list = append(list, path.text)
			continue
		}
		agrees := "as explained"
		if !path.Agrees {
			agrees = "NOT as explained"
		}
		list = append(list, fmt.Sprintf("probe: %s to %s, %s: the packet %s, %s", path.Source, path.Destination,
			path.Family, path.Verdict, agrees))
	}
	return strings.Join(list, "\n")
}

// send has podwall-lab send the packets of the answers.
func (e *explainCommand) send(ctx context.Context, sc *scene, answers []answer) (*probe, error) {
	program, err := e.findLab()
	if err != nil {
		return nil, err
	}
	report := &probe{}
	for _, a := range answers {
		if err := sc.canProbe(a); err != nil {
			return nil, err
		}
		path, err := e.sendOne(ctx, program, a)
		if err != nil {
			return nil, err
		}
		report.Packets = append(report.Packets, path)
		report.Differs = report.Differs || !path.Agrees
	}
	return report, nil
}

// canProbe refuses what the lab has no end for.
func (sc *scene) canProbe(a answer) error {
	if a.way.translated() {
		return errors.New("--probe with -f does not send where a node puts its own address in the place of the " +
			"client's, as through node ports and external addresses")
	}
	for _, name := range []string{a.Source, a.Destination} {
		if strings.HasPrefix(name, "node/") {
			return fmt.Errorf("--probe sends between pods and addresses outside, not from or to %s", name)
		}
	}
	if a.Protocol != "tcp" && a.Protocol != "udp" && a.Protocol != "sctp" {
		return fmt.Errorf("--probe sends TCP, UDP and SCTP, not %s", a.Protocol)
	}
	return nil
}

// labReport is the part of the answer of podwall-lab run that is read.
type labReport struct {
	Schema    string   `json:"schema"`
	Endpoints []string `json:"endpoints"`
	Probes    []struct {
		Family string   `json:"family"`
		After  []string `json:"after"`
	} `json:"probes"`
}

// labSchema is the form of podwall-lab's answer that this program understands.
const labSchema = "podwall.run/v1"

func (e *explainCommand) sendOne(ctx context.Context, program string, a answer) (probedPath, error) {
	args := []string{"run", "-o", "json", "--from", a.Source, "--to", a.Destination, "--probe", fmt.Sprintf("%s:%d",
		a.Protocol, a.Port)}
	for _, name := range []string{a.Source, a.Destination} {
		if _, err := netip.ParseAddr(name); err == nil {
			args = append(args, "--host", name)
		}
	}
	for _, path := range e.source.from.Paths {
		args = append(args, "-f", path)
	}
	if e.source.from.Recursive {
		args = append(args, "-R")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	if slices.Contains(e.source.from.Paths, manifest.Stdin) {
		cmd.Stdin = bytes.NewReader(e.source.from.Text)
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	var report labReport
	if jsonErr := json.Unmarshal(out.Bytes(), &report); jsonErr != nil {
		return probedPath{}, fmt.Errorf("sending with %s: %w", program, errors.Join(err,
			errors.New(strings.TrimSpace(said.String()))))
	}
	if report.Schema != labSchema {
		return probedPath{}, fmt.Errorf("%s answers in the form %q, want %q: use the one of this release", program,
			report.Schema, labSchema)
	}
	return report.verdict(a), nil
}

// verdict reads the packet of an answer out of the lab's report.
func (r *labReport) verdict(a answer) probedPath {
	p := probedPath{Source: a.Source, Destination: a.Destination, Family: familyName(a.DestinationAddress),
		Verdict: isUnknown}
	src, dst := slices.Index(r.Endpoints, a.Source), slices.Index(r.Endpoints, a.Destination)
	for _, probe := range r.Probes {
		if !strings.EqualFold(probe.Family, p.Family) || src < 0 || dst < 0 || src >= len(probe.After) ||
			dst >= len(probe.After[src]) {
			continue
		}
		switch probe.After[src][dst] {
		case '1':
			p.Verdict, p.Agrees = "arrived", a.Allowed
		case '0':
			p.Verdict, p.Agrees = "was dropped", !a.Allowed
		}
	}
	return p
}

// findLab returns the path of podwall-lab.
func (e *explainCommand) findLab() (string, error) {
	path, err := command.Find("podwall-lab", e.lab)
	if err != nil {
		return "", fmt.Errorf("%w; build it, or name it with --lab", err)
	}
	return path, nil
}
