// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// What is usable stays usable: kube-router takes a server without a scheme, and a node's
// name with a capital letter is answered better by the agent, which sees the Nodes.
func TestUsableValuesAreTaken(t *testing.T) {
	for _, arg := range []string{
		"--master=", "--master=https://10.0.0.10:6443", "--master=http://localhost:8080", "--master=10.0.0.10:6443",
		"--master=api.example", "--master=https://[fd00::1]:6443", "--master=https://h/prefix", "--master=https://h/", "--master=h:6443/",
		"--hostname-override=Node-1", "--hostname-override=node_1.example", "--gate-socket=", "--gate-socket=/" + strings.Repeat("x", 106),
		"--uplink-interfaces=eth*,bond?,enp0s31f6", "--uplink-interfaces=", "--uplink-interfaces=averyveryverylongpattern*",
		"--health-addr=::1", "--health-addr=[::1]", "--health-addr=", "--health-addr=localhost", "--health-addr=fe80::1%eth0",
		"--metrics-addr=node1.example.", "--metrics-path=/", "--metrics-path=/a/", "--metrics-path=/metrics/podwall",
	} {
		if _, _, err := Parse([]string{arg}, node1, io.Discard); err != nil {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// A value with which nothing can ever work is a wrong command line: the flag is named,
// and what helps.
func TestUnusableValuesAreRefused(t *testing.T) {
	for _, tt := range []struct {
		arg  string
		want []string // parts of the one line
	}{
		{"--master=ftp://h", []string{`--master: "ftp://h" has the scheme "ftp"`, "write for example https://"}},
		{"--master=https://", []string{`--master: "https://" names no host`, "write for example https://"}},
		{"--master=:6443", []string{"names no host"}},
		{"--master=https://h:70000", []string{"has the port 70000"}},
		{"--master=h:https", []string{"--master: ", "is no address of a server", "write for example https://"}},
		{"--master=h/api", []string{"has a path and no scheme"}},
		{"--master=https://h/?x=1", []string{"more than a scheme, a host, a port and a path"}},
		{"--master=https://10.0.0", []string{"no host name ends with a number"}},
		{"--master=https://[fd00::1", []string{"is no address of a server"}},
		{"--hostname-override=a/b", []string{`--hostname-override: "a/b" cannot be the name of a Node; kubectl get nodes`}},
		{"--gate-socket=gate.sock", []string{"--gate-socket: ", "is not the absolute path of a file"}},
		{"--gate-socket=/run/podwall/", []string{"is not the absolute path of a file"}},
		{"--gate-socket=/" + strings.Repeat("x", 107), []string{"has 108 bytes; the path of a socket can have 107"}},
		{"--uplink-interfaces=eth0,averyveryverylongname", []string{`--uplink-interfaces: "averyveryverylongname" can be no interface`, "15 bytes"}},
		{"--uplink-interfaces=a/b", []string{"no slash and no space"}},
		{"--health-addr=127.0.0.300", []string{`--health-addr: "127.0.0.300" is no IP address`, "127.0.0.1"}},
		{"--metrics-addr=a,b", []string{`--metrics-addr: "a,b" is neither an IP address nor a host name`}},
		{"--metrics-path=/metrics?x", []string{"is reached by no request"}},
		{"--metrics-path=/a/../metrics", []string{"is reached by no request; write /metrics"}},
	} {
		_, _, err := Parse([]string{tt.arg}, node1, io.Discard)
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%s: %v, want a UsageError", tt.arg, err)
			continue
		}
		flag, _, _ := strings.Cut(tt.arg, "=")
		for _, want := range append(tt.want, flag) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not contain %q", tt.arg, err, want)
			}
		}
	}
}
