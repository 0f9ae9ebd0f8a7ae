// SPDX-License-Identifier: Apache-2.0

// Command kube holds the upstream components of a cluster without changes,
// beside the API server and kube-proxy that stand for themselves:
//
//	kube kubelet|kube-controller-manager|kube-scheduler|kubectl [flags]
//
// It is one program because linking one takes seconds of two cores and 70 MB,
// and most of it is common to all four. Package test/cluster starts it.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"          // as in the released binaries
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as in the released binaries
	_ "k8s.io/component-base/metrics/prometheus/version"  // as in the released binaries
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	name := filepath.Base(os.Args[0])
	if name == "kube" && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	if name == "kubectl" {
		runKubectl()
		return
	}
	cmd := component(name)
	if cmd == nil {
		fmt.Fprintln(os.Stderr, "usage: kube kubelet|kube-controller-manager|kube-scheduler|kubectl [flags]")
		os.Exit(2)
	}
	os.Exit(cli.Run(cmd))
}

// component returns nil for an unknown name.
func component(name string) *cobra.Command {
	switch name {
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background())
	case "kube-controller-manager":
		return controllers.NewControllerManagerCommand()
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand()
	}
	return nil
}

// runKubectl does what upstream's own main function does.
func runKubectl() {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}
