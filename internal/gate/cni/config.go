// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/podwall/podwall/internal/gate"
)

// The settings of onTimeout.
const (
	onTimeoutIsolated = "isolated"
	onTimeoutRefuse   = "refuse"
)

// DefaultTimeout is the time that a pod's start waits for the kernel. The watch
// brings a pod's object within a second and an agent that is updated is back in
// two or three; runtimes give a sandbox minutes, so 5 seconds lose no start.
const DefaultTimeout = 5 * time.Second

// config is the plugin's entry in a configuration, as runtimes hand it over.
type config struct {
	types.PluginConf
	// Socket is the agent's.
	Socket string `json:"socket"`
	// Timeout is how long a start waits, as in "5s".
	Timeout string `json:"timeout"`
	// OnTimeout says what happens then: "isolated" or "refuse".
	OnTimeout string `json:"onTimeout"`
	// Previous is the result of the plugins before, as it came.
	Previous json.RawMessage `json:"-"`

	wait time.Duration
}

func parse(data []byte) (config, error) {
	c := config{Socket: gate.DefaultSocket, OnTimeout: onTimeoutIsolated, wait: DefaultTimeout}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, types.NewError(types.ErrDecodingFailure, "reading the configuration of podwall-gate", err.Error())
	}
	var raw struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return c, types.NewError(types.ErrDecodingFailure, "reading the configuration of podwall-gate", err.Error())
	}
	c.Previous = raw.PrevResult
	return c, c.check()
}

func (c *config) check() error {
	bad := func(field, problem, cure string) error {
		return types.NewError(types.ErrInvalidNetworkConfig, "podwall-gate: "+field+": "+problem, cure)
	}
	if !filepath.IsAbs(c.Socket) {
		return bad("socket", fmt.Sprintf("%q is no absolute path", c.Socket),
			"write the agent's --gate-socket, or leave it out for "+gate.DefaultSocket)
	}
	if c.OnTimeout != onTimeoutIsolated && c.OnTimeout != onTimeoutRefuse {
		return bad("onTimeout", fmt.Sprintf("%q is unknown", c.OnTimeout), `write "isolated" or "refuse"`)
	}
	if c.Timeout == "" {
		return nil
	}
	d, err := time.ParseDuration(c.Timeout)
	if err != nil || d <= 0 || d > gate.MaxWait {
		return bad("timeout", fmt.Sprintf("%q is no duration between 0 and %s", c.Timeout, gate.MaxWait),
			`write for example "5s"`)
	}
	c.wait = d
	return nil
}

// result reads what the plugins before returned.
func (c *config) result() (*current.Result, error) {
	if len(c.Previous) == 0 || string(c.Previous) == "null" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "podwall-gate: prevResult: is missing",
			"put podwall-gate into the list of plugins, after the one that gives pods their addresses; "+
				"podwall-gate install does that")
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "podwall-gate: reading prevResult", err.Error())
	}
	r, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "podwall-gate: reading prevResult", err.Error())
	}
	return r, nil
}

// pass prints the result as it came. Only one in another version than that of
// the configuration is written again.
func (c *config) pass(out io.Writer, r *current.Result) error {
	var v struct {
		Version string `json:"cniVersion"`
	}
	if err := json.Unmarshal(c.Previous, &v); err == nil && v.Version == c.CNIVersion {
		_, err := out.Write(c.Previous)
		return err
	}
	as, err := r.GetAsVersion(c.CNIVersion)
	if err != nil {
		return types.NewError(types.ErrIncompatibleCNIVersion, "podwall-gate: writing the result", err.Error())
	}
	return as.PrintTo(out)
}

// identity are the arguments that runtimes of Kubernetes give. Unknown ones are
// ignored.
type identity struct{ namespace, name, uid string }

func parseArgs(text string) (id identity) {
	for pair := range strings.SplitSeq(text, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			id.namespace = value
		case "K8S_POD_NAME":
			id.name = value
		case "K8S_POD_UID":
			id.uid = value
		}
	}
	return id
}

// podOf returns what is announced; ok is false for what is no pod's own
// interface.
func podOf(c config, args *skel.CmdArgs, r *current.Result) (p gate.Pod, ok bool, err error) {
	id := parseArgs(args.Args)
	if id.name == "" || id.namespace == "" || args.IfName != interfaceOfPod {
		return p, false, nil
	}
	p = gate.Pod{Sandbox: args.ContainerID, Namespace: id.namespace, Name: id.name, UID: id.uid, Network: c.Name,
		Netns: args.Netns}
	inside := make([]bool, len(r.Interfaces))
	for i, link := range r.Interfaces {
		if inside[i] = link.Sandbox != ""; !inside[i] {
			p.Links = append(p.Links, link.Name)
		}
	}
	for _, ip := range r.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(inside) && !inside[*i] {
			continue // of the node's side
		}
		a, valid := netip.AddrFromSlice(ip.Address.IP)
		if !valid {
			return p, false, types.NewError(types.ErrDecodingFailure,
				"podwall-gate: prevResult.ips: "+ip.Address.String()+" is no address", "")
		}
		p.IPs = append(p.IPs, a.Unmap())
	}
	if len(p.IPs) == 0 {
		return p, false, types.NewError(types.ErrInvalidNetworkConfig,
			"podwall-gate: prevResult.ips: the pod has no address",
			"put podwall-gate after the plugin that gives pods their addresses")
	}
	return p, true, nil
}

// Check says what is wrong with the settings, before they are installed.
func (e Entry) Check() error {
	data, err := marshal(e)
	if err != nil {
		return err
	}
	_, err = parse(data)
	return err
}
