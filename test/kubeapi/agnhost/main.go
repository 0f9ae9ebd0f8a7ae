// SPDX-License-Identifier: Apache-2.0

// Command agnhost is upstream's test program with the commands that the specs of
// NetworkPolicy and of Services and the scenarios of test/cluster use. The whole of it needs 0.1 s
// of a processor to start, this a quarter of that, and each spec starts it some
// 450 times.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"k8s.io/kubernetes/test/images/agnhost/connect"
	"k8s.io/kubernetes/test/images/agnhost/netexec"
	"k8s.io/kubernetes/test/images/agnhost/pause"
	"k8s.io/kubernetes/test/images/agnhost/porter"
	servehostname "k8s.io/kubernetes/test/images/agnhost/serve-hostname"
	testwebserver "k8s.io/kubernetes/test/images/agnhost/test-webserver"
)

func main() {
	root := &cobra.Command{Use: "agnhost"}
	root.AddCommand(connect.CmdConnect, netexec.CmdNetexec, pause.CmdPause, porter.CmdPorter,
		servehostname.CmdServeHostname, testwebserver.CmdTestWebserver)
	if root.Execute() != nil { // it has said why
		os.Exit(1)
	}
}
