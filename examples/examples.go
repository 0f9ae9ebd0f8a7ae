// SPDX-License-Identifier: Apache-2.0

// Package examples holds the policies that people copy and the small cluster
// that the demo runs them in, so that a program carries them along. It stands
// beside the data path and does nothing.
package examples

import "embed"

// Files are the manifests: seed/*.yaml are the five example policies published
// with kube-router's firewall-only setup, demo/cluster.yaml is a cluster to try
// them in.
//
//go:embed seed/*.yaml demo/*.yaml
var Files embed.FS
