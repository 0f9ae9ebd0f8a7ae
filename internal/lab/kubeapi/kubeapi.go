// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package kubeapi starts a real kube-apiserver with a real etcd, and ends it again.
//
// It stands outside the data path: tests use it where the API's own
// semantics count (resource versions, watches, validation, status). It only
// starts the program of the module test/kubeapi as a process and never links
// any of it. The process also ends when the program that started it dies. There are no controllers
// behind this API: nobody schedules pods, makes
// EndpointSlices or ends the deletion of a namespace, so a test that wants an
// empty namespace takes a new name.
package kubeapi

import (
	"net/netip"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Profile says how much of the API server is on.
type Profile string

// The profiles. Min is the default: the API groups that an agent needs, no
// authorization and no admission but NamespaceLifecycle; ready in less than a
// second. Full has every group, RBAC and all default admission but
// ServiceAccount, and takes about two seconds. Cluster is for use beside
// controllers and kubelets: Full with all admission and NodeRestriction; among
// the users must be the API server's own at kubelets, kubelet-client.
const (
	Min     Profile = "min"
	Full    Profile = "full"
	Cluster Profile = "cluster"
)

// Options say where and how to serve. The zero value is a free port on
// loopback in the caller's network namespace.
type Options struct {
	// Program is the program to start; empty means the one of Program.
	Program string
	// Netns is the network namespace in which the whole process lives; nil
	// means the caller's own. It stays the caller's, and clients by RESTConfig
	// need it open.
	Netns *netns.NS
	// Bind is the address to serve on; the zero value means 127.0.0.1. It is
	// in the certificate and in the kubeconfig, so it must be an address that
	// the clients reach. Services get the family of this address.
	Bind netip.Addr
	// Port is the port to serve on; 0 picks a free one.
	Port int
	// Profile is Min if empty.
	Profile Profile
	// Names are further addresses in the server's certificate.
	Names []netip.Addr
	// Users get a kubeconfig, a certificate and a key each, in the server's
	// directory: FILE.kubeconfig, FILE.crt and FILE.key for FILE=NAME/GROUP.
	Users []string
	// Flags are further flags of kube-apiserver; they win over our own.
	Flags []string
}
