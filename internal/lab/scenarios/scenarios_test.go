// SPDX-License-Identifier: Apache-2.0

package scenarios

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMistakesInScenariosAreFound(t *testing.T) {
	for text, want := range map[string]string{
		`[{name: a}]`: "no name or no source",
		`[{name: a, source: b, packets: [{from: a1, to: 10.0.0.1}]}]`:                              "packet 0: goes or answer",
		`[{name: a, source: b, packets: [{from: a1, to: 10.0.0.1, answer: refuse}]}]`:              "packet 0: goes or answer",
		`[{name: a, source: b, packets: [{from: a1, to: 10.0.0.1, answer: drop, goes: ["a:1"]}]}]`: "packet 0: goes or answer",
		`[{name: a, source: b, packet: []}]`:                                                       `unknown field "packet"`,
	} {
		dir := fstest.MapFS{WorldFile: {Data: []byte("nodes: []")}, "x.yaml": {Data: []byte(text)}}
		if _, _, err := Read(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x.yaml") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestEndsAreFound(t *testing.T) {
	w, list, err := Read(os.DirFS("../../../testdata/services"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		packet Packet
		want   string
	}{
		{Packet{From: "a2", To: "10.96.0.1"}, "node-a 10.244.1.12 10.96.0.1 false"},
		{Packet{From: "b1", To: "fd00::1"}, "node-b fd00:10:244:2::11 fd00::1 false"},
		{Packet{From: "client", To: "node-b", At: "node-b"}, "node-b 203.0.113.9 172.18.0.12 false"},
		{Packet{From: "node-b", To: "10.96.0.1"}, "node-b 172.18.0.12 10.96.0.1 true"},
		{Packet{From: "node-b", To: "10.96.0.1", At: "node-a"}, "node-a 172.18.0.12 10.96.0.1 false"},
		{Packet{From: "node-a", To: "node-a", Source: netip.MustParseAddr("fd00::7")}, "node-a fd00::7 fd00:18::11 true"},
		{Packet{From: "nobody", To: "10.96.0.1"}, `no end "nobody"`},
		{Packet{From: "a1", To: "node-x"}, `"node-x" is neither a node nor an address`},
		{Packet{From: "a1", To: "10.96.0.1", At: "x"}, `no node "x"`},
	} {
		a, err := w.Ask(tt.packet)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = strings.Join([]string{a.Node.Name, a.Src.String(), a.Dst.String(), map[bool]string{true: "true",
				false: "false"}[a.FromNode]}, " ")
		}
		if got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.packet, got, tt.want)
		}
	}
	if got := w.Name(netip.MustParseAddrPort("[fd00:10:244:3::11]:80"), true); got != "c1:80 masqueraded" {
		t.Errorf("a backend is named %s", got)
	}
	names := map[string]bool{}
	for _, s := range list {
		if names[s.File+s.Name] {
			t.Errorf("%s has two scenarios %q", s.File, s.Name)
		}
		names[s.File+s.Name] = true
	}
	if _, _, err := w.Snapshot(list[0].Objects); err != nil {
		t.Error(err)
	}
	if _, _, err := w.Snapshot(append(list[0].Objects, []byte(`{"kind": "Pod"}`))); err == nil {
		t.Error("an object of another kind is read")
	}
	if _, _, err := w.Snapshot(append(list[0].Objects, []byte(`{"kind": "Service", "sepc": {}}`))); err == nil {
		t.Error("an unknown field is read")
	}
}
