// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/gate"
)

// previous is a result as the bridge plugin returns it, with the spaces of
// whoever wrote it and a field that we do not know.
const previous = `{"cniVersion": "1.0.0",  "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x", "x": 1}],
 "ips": [{"address": "10.88.0.5/16", "gateway": "10.88.0.1", "interface": 2}, {"address": "10.88.0.1/16", "interface": 0}, {"address": "fd00::5/64"}], "dns": {}}`

func arguments(config string) *skel.CmdArgs {
	return &skel.CmdArgs{ContainerID: "s1", Netns: "/run/netns/x", IfName: "eth0", StdinData: []byte(config),
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=s1;K8S_POD_UID=u"}
}

func configuration(rest string) string {
	return `{"cniVersion": "1.0.0", "name": "pods", "type": "podwall-gate", "socket": "/nowhere/gate.sock", "timeout": "1ms"` + rest + `}`
}

func TestThePodIsReadFromTheResultAndTheArguments(t *testing.T) {
	c, err := parse([]byte(configuration(`, "prevResult": ` + previous)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.result()
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := podOf(c, arguments(""), r)
	if err != nil || !ok {
		t.Fatalf("ok %t, %v", ok, err)
	}
	want := gate.Pod{Sandbox: "s1", Namespace: "shop", Name: "web", UID: "u", Network: "pods", Netns: "/run/netns/x",
		Links: []string{"cni0", "veth1"}, IPs: []netip.Addr{netip.MustParseAddr("10.88.0.5"), netip.MustParseAddr("fd00::5")}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
}

func TestTheResultIsPassedOnByteForByte(t *testing.T) {
	for name, change := range map[string]func(*skel.CmdArgs){
		"a pod":                       func(*skel.CmdArgs) {},
		"no pod of Kubernetes":        func(a *skel.CmdArgs) { a.Args = "" },
		"another interface of a pod":  func(a *skel.CmdArgs) { a.IfName = "net1" },
		"arguments that are not ours": func(a *skel.CmdArgs) { a.Args += ";X=1;Y" },
	} {
		var out, log bytes.Buffer
		args := arguments(configuration(`, "prevResult": ` + previous))
		change(args)
		if err := (Plugin{Out: &out, Log: &log}).add(args); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out.String() != previous {
			t.Errorf("%s: result\n%s\nwant\n%s", name, &out, previous)
		}
	}
}

func TestAStartWithoutAnAgent(t *testing.T) {
	broken := errors.New("no nftables")
	tests := []struct {
		name     string
		rest     string
		skeleton error
		code     uint // 0 for a start
		says     string
	}{
		{"closed is the default", ``, nil, 0, "starts closed"},
		{"closed by choice", `, "onTimeout": "isolated"`, nil, 0, "starts closed"},
		{"refused by choice", `, "onTimeout": "refuse"`, nil, types.ErrTryAgainLater, "is not enforced after 1ms"},
		{"what cannot be closed does not start", ``, broken, types.ErrTryAgainLater, "would start open"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, log bytes.Buffer
			var links []string
			var addrs []netip.Addr
			p := Plugin{Out: &out, Log: &log, Skeleton: func(_ context.Context, l []string, a []netip.Addr) error {
				links, addrs = l, a
				return tt.skeleton
			}}
			err := p.add(arguments(configuration(tt.rest + `, "prevResult": ` + previous)))
			var e *types.Error
			switch {
			case tt.code == 0 && (err != nil || !strings.Contains(log.String(), tt.says)):
				t.Errorf("error %v, log %q", err, &log)
			case tt.code != 0 && (!errors.As(err, &e) || e.Code != tt.code || !strings.Contains(err.Error(), tt.says) || out.Len() > 0):
				t.Errorf("error %v with result %q, want code %d and %q", err, &out, tt.code, tt.says)
			}
			if diff := cmp.Diff([]string{"cni0", "veth1"}, links); diff != "" {
				t.Errorf("closed links (-want +got):\n%s", diff)
			}
			if got := fmt.Sprint(addrs); got != "[10.88.0.5 fd00::5]" {
				t.Errorf("closed are the addresses %s", got)
			}
		})
	}
}

// keeper is an agent that says what it is asked.
type keeper func(p gate.Pod)

func (k keeper) Announce(_ context.Context, p gate.Pod) error { k(p); return nil }
func (k keeper) Withdraw(string)                              {}
func (k keeper) Announced() []gate.Known                      { return nil }
func (k keeper) Off()                                         {}

// What the agent allows after it was told must not be touched: the skeleton comes
// first, whether or not there is an agent. One that fails is made good by an agent
// that enforces the pod.
func TestThePodIsClosedBeforeTheAgentIsTold(t *testing.T) {
	for _, broken := range []error{nil, errors.New("no nftables")} {
		var order []string
		dir, err := os.MkdirTemp("", "gatecni-") // short enough for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a directory for temporary files
		s := &gate.Server{Keeper: keeper(func(gate.Pod) { order = append(order, "told") }),
			Log: slog.New(slog.DiscardHandler), Owner: uint32(os.Getuid())}
		if err := s.Listen(filepath.Join(dir, "sock")); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			s.Run(ctx)
			close(done)
		}()
		var out, log bytes.Buffer
		p := Plugin{Out: &out, Log: &log, Skeleton: func(context.Context, []string, []netip.Addr) error {
			order = append(order, "closed")
			return broken
		}}
		err = p.add(arguments(`{"cniVersion": "1.0.0", "name": "n", "type": "podwall-gate", "timeout": "10s", "socket": "` +
			filepath.Join(dir, "sock") + `", "prevResult": ` + previous + `}`))
		stop()
		<-done
		if got := strings.Join(order, " "); err != nil || got != "closed told" {
			t.Errorf("order %q, error %v", got, err)
		}
		if said := strings.Contains(log.String(), "no nftables"); said != (broken != nil) {
			t.Errorf("with %v the log is %q", broken, &log)
		}
	}
}

func TestDELNeverFails(t *testing.T) {
	for _, config := range []string{configuration(""), configuration(`, "onTimeout": "x"`), `{"timeout": 5}`} {
		var log bytes.Buffer
		if err := (Plugin{Log: &log}).del(arguments(config)); err != nil {
			t.Errorf("%s: %v", config, err)
		}
	}
}

func TestConfigurationsThatAreRefusedNameFieldAndCure(t *testing.T) {
	tests := []struct{ name, config, want, cure string }{
		{"a relative socket", `{"socket": "gate.sock"}`, `socket: "gate.sock" is no absolute path`, "--gate-socket"},
		{"a time without unit", `{"timeout": "5"}`, `timeout: "5" is no duration`, `"5s"`},
		{"no time", `{"timeout": "0s"}`, "timeout:", `"5s"`},
		{"too long a time", `{"timeout": "2m"}`, "between 0 and 1m0s", `"5s"`},
		{"a number for a time", `{"timeout": 5}`, "reading the configuration", "timeout"},
		{"an unknown choice", `{"onTimeout": "open"}`, `onTimeout: "open" is unknown`, `"refuse"`},
		{"no result", `{}`, "prevResult: is missing", "after the one that gives pods their addresses"},
		{"no address", `{"cniVersion": "1.0.0", "prevResult": {"cniVersion": "1.0.0", "ips": []}}`,
			"prevResult.ips: the pod has no address", "after the plugin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := (Plugin{}).add(arguments(tt.config))
			var e *types.Error
			if !errors.As(err, &e) || !strings.Contains(e.Msg, tt.want) || !strings.Contains(e.Details, tt.cure) {
				t.Errorf("error %v, want %q and %q", err, tt.want, tt.cure)
			}
		})
	}
}
