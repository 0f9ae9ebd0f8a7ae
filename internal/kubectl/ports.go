// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/inet"
)

// portHelp documents the port of a destination.
const portHelp = `A port is NUMBER or NAME, with /udp or /sctp where it is not TCP, or icmp, which
stands for every protocol without ports. It may be left out where the
destination has one port only.`

// port is the port of a destination as it was written.
type port struct {
	protocol inet.Protocol
	number   uint16
	name     string // instead of number
	given    bool
}

// icmp is a protocol that no NetworkPolicy can name.
const icmp inet.Protocol = 1

// splitPort cuts DESTINATION[:PORT]. An IPv6 address with a port stands in brackets.
func splitPort(text string) (dst string, p port, err error) {
	if inner, found := strings.CutPrefix(text, "["); found {
		address, rest, closed := strings.Cut(inner, "]")
		if !closed || rest != "" && rest[0] != ':' {
			return "", p, fmt.Errorf("%q: want an IPv6 address with a port as in [2001:db8::1]:80", text)
		}
		if dst = address; rest == "" {
			return dst, p, nil
		}
		p, err = parsePort(rest[1:])
		return dst, p, err
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return text, p, nil
	}
	dst, rest, found := strings.Cut(text, ":")
	if found {
		p, err = parsePort(rest)
	}
	return dst, p, err
}

func parsePort(text string) (port, error) {
	p := port{protocol: inet.Protocol(cluster.TCP), given: true}
	if text == "icmp" {
		p.protocol = icmp
		return p, nil
	}
	text, protocol, found := strings.Cut(text, "/")
	if found {
		known, ok := cluster.ParseProtocol(strings.ToUpper(protocol))
		if !ok {
			return p, fmt.Errorf("unknown protocol %q, want tcp, udp or sctp", protocol)
		}
		p.protocol = inet.Protocol(known)
	}
	switch n, err := strconv.ParseUint(text, 10, 16); {
	case err == nil && n > 0:
		p.number = uint16(n)
	case text == "" || err == nil || strings.ContainsAny(text, "-: ") && text[0] >= '0' && text[0] <= '9':
		return p, fmt.Errorf("unknown port %q, want a number from 1 to 65535 or a name, as in 80, 53/udp or http", text)
	case strings.Trim(text, "0123456789") == "" || text[0] == '-':
		return p, fmt.Errorf("unknown port %q, want a number from 1 to 65535 or a name, as in 80, 53/udp or http", text)
	default:
		p.name = text
	}
	return p, nil
}

// bracketed is a name before a colon and a port.
func bracketed(name string) string {
	if strings.Contains(name, ":") {
		return "[" + name + "]"
	}
	return name
}

// resolve completes the port for a target that is no Service: a name by what its pod
// declares, one that was left out if the pod declares one.
func (p port) resolve(t target) (port, error) {
	if p.given && p.name == "" {
		return p, nil
	}
	if len(t.pods) == 0 {
		return p, fmt.Errorf("write the number of the port of %s, as in %s:80", t.name, bracketed(t.name))
	}
	var declared []cluster.NamedPort
	var names []string
	for _, n := range t.pods[0].NamedPorts() {
		names = append(names, fmt.Sprintf("%s (%d/%s)", n.Name, n.Port, strings.ToLower(n.Protocol.String())))
		if !p.given || n.Name == p.name && inet.Protocol(n.Protocol) == p.protocol {
			declared = append(declared, n)
		}
	}
	if len(declared) == 1 {
		return port{protocol: inet.Protocol(declared[0].Protocol), number: declared[0].Port, given: true}, nil
	}
	has := "it declares none by name"
	if len(names) > 0 {
		has = "it declares " + strings.Join(names, ", ")
	}
	if p.given {
		return p, fmt.Errorf("pod %s declares no port %q of that protocol: %s", t.pods[0].Key, p.name, has)
	}
	return p, fmt.Errorf("which port of %s? Write it as in %s:80; %s", t.name, t.name, has)
}

// fronts returns the ports of a Service that are meant.
func (p port) fronts(name string, all []complete.Front) ([]complete.Front, error) {
	var list []complete.Front
	var ports []string
	for _, f := range all {
		text := fmt.Sprintf("%d/%s", f.Front.Port(), strings.ToLower(f.Protocol.String()))
		if f.PortName != "" {
			text += " (" + f.PortName + ")"
		}
		ports = append(ports, text)
		if !p.given || inet.Protocol(f.Protocol) == p.protocol && (p.name != "" && f.PortName == p.name ||
			p.number == f.Front.Port()) {
			list = append(list, f)
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	switch {
	case len(list) == 0:
		return nil, fmt.Errorf("%s has no such port; it has %s", name, strings.Join(ports, ", "))
	case !p.given && len(ports) > 1:
		return nil, errors.New("which port of " + name + "? It has " + strings.Join(ports, ", "))
	}
	return list, nil
}
