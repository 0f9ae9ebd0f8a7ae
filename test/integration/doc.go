// SPDX-License-Identifier: Apache-2.0

// Package integration holds tests of the whole agent: podwall-agent processes
// in the nodes of a lab, a real API server on the network between them, and
// real packets between pods.
//
// It has no code of its own beside the tests, and it imports nothing of the
// agent that decides. What it expects is written by hand, scenario by scenario.
// It starts the agent as a node does, as a program with a command line and an
// environment, and learns from it only what an operator can see: exit status,
// log, health answers, the table in the kernel, and who reaches whom.
package integration
