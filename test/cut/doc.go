// SPDX-License-Identifier: Apache-2.0

// Package cut holds the tests in which connections exist when a policy changes: connections that it denies
// must end at once and stay cut although both ends keep talking, and connections that stay allowed must not
// lose a packet. The real agent runs in the nodes of package lab, on the real kernel.
//
// The tests count packets that enter a pod's namespace, not what a program there reads. The package
// contains no code of the program and starts nothing outside of its own namespaces.
package cut
