// SPDX-License-Identifier: Apache-2.0

// Package faults holds the tests in which something fails while packets flow: the agent is stopped, killed
// and upgraded, other programs write to the kernel's nftables and to our table, the API server fails,
// stalls and loses data, and the kernel refuses requests.
//
// Two flows must always pass and two must never pass. Packets that pass are counted where they arrive,
// others by the agent's drop counters; no verdict is derived from a time-out. The package contains no code
// of the program and starts nothing outside of its own namespaces. PODWALL_SOAK=1 makes the runs long.
package faults
