// SPDX-License-Identifier: Apache-2.0

// Package netpol builds the upstream end-to-end tests, cut down to the specs of
// the network: the specs and their framework are upstream's, without changes,
// and only the other twenty packages of specs are left out. `make kube` builds
// it as bin/netpol.test; package test/cluster runs it.
package netpol
