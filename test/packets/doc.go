// SPDX-License-Identifier: Apache-2.0

// Package packets tests traffic of ordinary programs and unusual networks: errors from routers, datagrams
// that do not fit, flows that fall silent, probes from any process of a node, host ports, tunnels, and a
// full connection table. It does not try to get past a policy; package attack does.
//
// The pods use ordinary sockets where these can send the packet. The real agent runs in the nodes of
// package lab, on the real kernel; package stage describes the verdicts. Connections that are idle longer
// than their entry's timeout (a minute or more for a half-closed one) are not tested.
package packets
