// SPDX-License-Identifier: Apache-2.0

// Package services sends packets through a node with the tables of the service proxy, and holds what comes
// out against the oracle: the scenarios of testdata/services, and random clusters. The kernel is the third
// witness, after the oracle and the interpreter of programs.
//
// The node is a network namespace with one device, a tunnel whose other end is the test: every pod, node
// and host outside is behind it. So each packet goes in with any source and comes out as it leaves the node,
// also SCTP, and packets of the node's own are sent from inside. It runs no agent.
package services
