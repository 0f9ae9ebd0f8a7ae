// SPDX-License-Identifier: Apache-2.0

// Package cluster starts a real Kubernetes cluster on this machine and takes it
// away again: API server, etcd, controller manager, scheduler, and nodes with
// containerd, runc, kubelet and kube-proxy, all of them upstream's programs
// without changes. It is where podwall is tried as it is installed: from its
// image and its manifest.
//
// A node is a process tree in network, mount, process, host name and IPC
// namespaces of its own. Its files are a layer over this machine's, so that all
// programs have their usual paths. When its first process ends, the kernel ends
// all others and takes mounts, links and rules along; and the first process ends
// when this program does, however that ends. What is left then are cgroups and
// files: Close removes them, and Start removes those of a program that was
// killed. Nothing of a cluster has a way out of its namespaces, and no setting
// of the machine is changed.
//
// A program that uses the package calls Enter first in main, or in TestMain.
package cluster
