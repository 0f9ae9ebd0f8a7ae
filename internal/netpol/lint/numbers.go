// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// onlyPods reports whether all peers are selectors of pods.
func onlyPods(peers cluster.Peers) bool {
	return !peers.Any && !slices.ContainsFunc(peers.List, func(p cluster.Peer) bool { return p.Block != nil })
}

// numbers asks about numbers that no pod declares. containers[].ports is informational: a
// pod may serve a port that it does not declare. So nothing is asked about a pod that
// declares nothing.
func (c *checker) numbers(field string, ports cluster.Ports, pods []*cluster.Pod, which string) {
	declared, ok := c.containerPorts(pods)
	if !ok {
		return
	}
	for _, port := range ports.List {
		if port.Name != "" || port.Any || slices.ContainsFunc(declared, within(port)) {
			continue
		}
		c.say(UndeclaredNumber, field, fmt.Sprintf("no %s declares %s, and all of them declare ports", which, port),
			"rules mean the port of the pod, not of the Service: correct the number, "+
				"or declare it in containers[].ports"+
				declares(declared, port.Protocol))
	}
}

// containerPorts returns what pods declare; false if there are none, or if one declares
// nothing.
func (c *checker) containerPorts(pods []*cluster.Pod) (list []cluster.NamedPort, ok bool) {
	for _, p := range pods {
		ports := c.facts.ContainerPorts[p.Key]
		if len(ports) == 0 {
			return nil, false
		}
		list = append(list, ports...)
	}
	return list, len(list) > 0
}

func within(port cluster.Port) func(cluster.NamedPort) bool {
	return func(n cluster.NamedPort) bool {
		return n.Protocol == port.Protocol && port.First <= n.Port && n.Port <= port.Last
	}
}

// maxNamed is the number of ports or pods that a message names.
const maxNamed = 4

// declares names the ports of a protocol, as the end of a cure.
func declares(list []cluster.NamedPort, protocol cluster.Protocol) string {
	var numbers []uint16
	for _, n := range list {
		if n.Protocol == protocol {
			numbers = append(numbers, n.Port)
		}
	}
	slices.SortFunc(numbers, cmp.Compare)
	numbers = slices.Compact(numbers)
	if len(numbers) == 0 {
		return fmt.Sprintf("; they declare no port of %s", protocol)
	}
	text := fmt.Sprintf("; they declare %d", numbers[0])
	for _, n := range numbers[1:min(len(numbers), maxNamed)] {
		text += fmt.Sprintf(", %d", n)
	}
	if more := len(numbers) - maxNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
