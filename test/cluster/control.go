// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/process"
)

// startControl starts the API server, and the programs that act on its objects.
func (c *Cluster) startControl(ctx context.Context) (err error) {
	users := []string{"kubelet-client=kube-apiserver-kubelet-client/system:masters",
		"controllers=system:kube-controller-manager",
		"scheduler=system:kube-scheduler", "proxy=system:kube-proxy"}
	for i := range c.options.Nodes {
		name := nodeName(i + 1)
		users = append(users, fmt.Sprintf("%s=system:node:%s/system:nodes", name, name))
	}
	at := c.plan.fabric(1)
	c.server, err = kubeapi.Launch(ctx, c.dir, kubeapi.Options{
		Program: filepath.Join(c.options.Bin, "kubeapi"), Netns: c.fabric, Bind: at[0].Addr(), Port: controlPort,
		Profile: kubeapi.Cluster, Users: users, Names: append(addresses(at), c.plan.apiNames()...),
		Flags: []string{"--service-cluster-ip-range=" + c.plan.join(services4, services6)}})
	if err != nil {
		return err
	}
	config, err := c.server.RESTConfig()
	if err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	config.QPS = -1
	if c.asker, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	if err := c.startProgram("kube-controller-manager", "controllers", "--use-service-account-credentials=true",
		"--service-account-private-key-file="+filepath.Join(c.dir, "sa.key"), "--root-ca-file="+filepath.Join(c.dir,
			"ca.crt"),
		"--allocate-node-cidrs=false", "--concurrent-namespace-syncs=10"); err != nil {
		return err
	}
	return c.startProgram("kube-scheduler", "scheduler")
}

// startProgram starts a component of the control plane as a user of the API.
func (c *Cluster) startProgram(name, user string, args ...string) error {
	config := filepath.Join(c.dir, user+".kubeconfig")
	args = append([]string{name, "--kubeconfig=" + config, "--authentication-kubeconfig=" + config,
		"--authorization-kubeconfig=" + config,
		"--leader-elect=false", "--bind-address=127.0.0.1"}, args...)
	p, err := process.Start(exec.Command(filepath.Join(c.options.Bin, "kube"), args...),
		process.Options{Name: name, Log: filepath.Join(c.dir, name+".log"), NS: c.fabric})
	if err == nil {
		c.programs = append(c.programs, p)
	}
	return err
}

// awaitAccount waits for the account without which pods are refused. The
// controller manager makes it.
func (c *Cluster) awaitAccount(ctx context.Context) error {
	return Await(ctx, "the default service account", patience, func(ctx context.Context) error {
		if err := process.Lives(c.programs...); err != nil {
			return err
		}
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}
