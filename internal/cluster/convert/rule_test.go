// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"testing"
)

// peerRow is a row whose spec is one ingress rule with one list of peers.
func peerRow(name, peers, want string, found ...string) row {
	for i, f := range found {
		var severity, rest string
		if _, err := fmt.Sscan(f, &severity, &rest); err != nil {
			panic(err)
		}
		found[i] = severity + " spec.ingress[0].from" + rest
	}
	return row{name, "{ingress: [{from: " + peers + "}]}", "subject all\ningress 0{" + want + " : any}", found}
}

func portRow(name, ports, want string, found ...string) row {
	for i, f := range found {
		found[i] = "error spec.ingress[0].ports" + f
	}
	return row{name, "{ingress: [{ports: " + ports + "}]}", "subject all\ningress 0{any : " + want + "}", found}
}

func TestPodPeers(t *testing.T) {
	runRows(t, []row{
		peerRow("a pod selector alone means the own namespace", `[{podSelector: {matchLabels: {a: b}}}]`, "own/a=b"),
		peerRow("a namespace selector alone means every pod there", `[{namespaceSelector: {}}]`, "all/all"),
		peerRow("both selectors are one and", `[{namespaceSelector: {matchLabels: {team: m}}, podSelector: {matchLabels: {a: b}}}]`,
			"team=m/a=b"),
		peerRow("two entries are an or", `[{namespaceSelector: {matchLabels: {team: m}}}, {podSelector: {matchLabels: {a: b}}}]`,
			"team=m/all | own/a=b"),
		peerRow("a bad pod selector matches nobody", `[{podSelector: {matchExpressions: [{key: a, operator: Gt, values: ["1"]}]}}]`,
			"nobody", "error [0].podSelector"),
		peerRow("a bad selector spoils its peer only",
			`[{podSelector: {}, namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [x]}]}}, {podSelector: {}}]`,
			"own/all", "error [0].namespaceSelector"),
		peerRow("two bad selectors are both named",
			`[{podSelector: {matchLabels: {"": ""}}, namespaceSelector: {matchLabels: {"": ""}}}]`,
			"nobody", "error [0].podSelector", "error [0].namespaceSelector"),
		peerRow("an empty peer matches nobody", `[{}]`, "nobody", "error [0]"),
		peerRow("a null peer matches nobody", `[null]`, "nobody", "error [0]"),
		peerRow("a peer of null selectors matches nobody", `[{podSelector: null, namespaceSelector: null}]`, "nobody",
			"error [0]"),
		peerRow("a block with a selector matches nobody", `[{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]`, "nobody",
			"error [0]"),
	})
}

func TestIPBlocks(t *testing.T) {
	runRows(t, []row{
		peerRow("a block of each family", `[{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "2001:DB8::/64"}}]`,
			"0.0.0.0/0 | 2001:db8::/64"),
		peerRow("holes are kept", `[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}}]`,
			"10.0.0.0/8!10.1.0.0/16!10.2.0.0/16"),
		peerRow("host bits are masked", `[{ipBlock: {cidr: 10.161.0.0/8, except: [10.1.2.3/16]}}]`,
			"10.0.0.0/8!10.1.0.0/16", "warning [0].ipBlock.cidr", "warning [0].ipBlock.except[0]"),
		peerRow("leading zeros mean nothing", `[{ipBlock: {cidr: 010.0.0.0/08, except: [010.001.0.0/16]}}, {ipBlock: {cidr: "2001:0db8::/032"}}]`,
			"10.0.0.0/8!10.1.0.0/16 | 2001:db8::/32", "warning [0].ipBlock.cidr", "warning [0].ipBlock.except[0]",
			"warning [1].ipBlock.cidr"),
		peerRow("leading zeros before bits behind the prefix", `[{ipBlock: {cidr: 192.168.001.010/24}}]`,
			"192.168.1.0/24", "warning [0].ipBlock.cidr"),
		peerRow("IPv4 written as IPv6 is IPv4", `[{ipBlock: {cidr: "::ffff:10.0.0.0/104", except: ["::FFFF:a01:0/112"]}}]`,
			"10.0.0.0/8!10.1.0.0/16", "warning [0].ipBlock.cidr", "warning [0].ipBlock.except[0]"),
		peerRow("IPv4 written as IPv6 with the length of IPv4 matches nobody",
			`[{ipBlock: {cidr: "::ffff:10.0.0.0/8"}}]`,
			"nobody", "error [0].ipBlock.cidr"),
		peerRow("IPv4 written as IPv6 with bits behind the prefix matches nobody",
			`[{ipBlock: {cidr: "::ffff:10.0.0.0/96"}}]`,
			"nobody", "error [0].ipBlock.cidr"),
		peerRow("a zone matches nobody", `[{ipBlock: {cidr: "fe80::1%eth0/64"}}]`, "nobody", "error [0].ipBlock.cidr"),
		peerRow("an address without length matches nobody", `[{ipBlock: {cidr: 10.0.0.1}}]`, "nobody",
			"error [0].ipBlock.cidr"),
		peerRow("no text matches nobody", `[{ipBlock: {}}]`, "nobody", "error [0].ipBlock.cidr"),
		peerRow("a hole that cannot be read closes the block",
			`[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1/16, 10.2.0.0/16]}}]`,
			"nobody", "error [0].ipBlock.except[0]"),
		peerRow("a hole of the other family closes the block", `[{ipBlock: {cidr: 0.0.0.0/0, except: ["fd00::/8"]}}]`,
			"nobody", "error [0].ipBlock.except[0]"),
		peerRow("a bad block leaves its neighbours alone", `[{ipBlock: {cidr: x}}, {ipBlock: {cidr: 192.0.2.0/24}}]`,
			"192.0.2.0/24", "error [0].ipBlock.cidr"),
		peerRow("a hole outside takes nothing away", `[{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]`,
			"10.0.0.0/8!11.0.0.0/16", "warning [0].ipBlock.except[0]"),
		peerRow("a hole as large as the block leaves nothing", `[{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]`,
			"10.0.0.0/8!10.0.0.0/8", "warning [0].ipBlock.except[0]"),
		peerRow("a hole larger than the block leaves nothing", `[{ipBlock: {cidr: 10.1.0.0/16, except: [0.0.0.0/0]}}]`,
			"10.1.0.0/16!0.0.0.0/0", "warning [0].ipBlock.except[0]"),
	})
}

func TestPorts(t *testing.T) {
	runRows(t, []row{
		portRow("the protocol defaults to TCP", `[{port: 80}]`, "tcp:80"),
		portRow("a protocol alone means all of its ports", `[{protocol: SCTP}]`, "sctp"),
		portRow("an empty entry means all of TCP", `[{}]`, "tcp"),
		portRow("a null entry means all of TCP", `[null]`, "tcp"),
		portRow("a name is kept", `[{port: http, protocol: UDP}]`, "udp:http"),
		portRow("a range has both ends", `[{port: 80, endPort: 90}, {port: 65535, endPort: 65535}]`,
			"tcp:80-90 | tcp:65535"),
		portRow("an unknown protocol matches none", `[{protocol: ICMP}]`, "none", "[0].protocol"),
		portRow("a protocol in lower case matches none", `[{protocol: tcp, port: 80}]`, "none", "[0].protocol"),
		portRow("an empty protocol matches none", `[{protocol: "", port: 80}]`, "none", "[0].protocol"),
		portRow("port 0 matches none", `[{port: 0}]`, "none", "[0].port"),
		portRow("a negative port matches none", `[{port: -1}]`, "none", "[0].port"),
		portRow("port 65536 matches none", `[{port: 65536}]`, "none", "[0].port"),
		portRow("endPort 65536 matches none", `[{port: 1, endPort: 65536}]`, "none", "[0].endPort"),
		portRow("endPort 0 matches none", `[{port: 1, endPort: 0}]`, "none", "[0].endPort"),
		portRow("endPort below port matches none", `[{port: 90, endPort: 80}]`, "none", "[0].endPort"),
		portRow("endPort without port matches none", `[{endPort: 80}]`, "none", "[0].endPort"),
		portRow("endPort with a name matches none", `[{port: http, endPort: 80}]`, "none", "[0].endPort"),
		portRow("an empty name matches none", `[{port: ""}]`, "none", "[0].port"),
		portRow("a number in quotes is no name", `[{port: "80"}]`, "none", "[0].port"),
		portRow("a name in upper case matches none", `[{port: HTTP}]`, "none", "[0].port"),
		portRow("a bad entry leaves its neighbours alone", `[{port: 0}, {port: 80}]`, "tcp:80", "[0].port"),
	})
}
