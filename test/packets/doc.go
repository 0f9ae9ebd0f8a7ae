// SPDX-License-Identifier: Apache-2.0

// Package packets holds the tests of what polite programs and odd networks
// send: errors from routers, datagrams that do not fit, flows that fall silent,
// probes from any process of a node, ports of the host, tunnels, and a
// connection table with no room left. Nobody here wants to get past a policy;
// package attack is for those who do.
//
// The pods use ordinary sockets where these can make the packet. The real agent
// runs in the nodes of package lab, on the real kernel; see package stage for
// how is judged. A connection that is idle for longer than its entry lives (a
// minute and more for a half-closed one) is not waited for.
package packets
