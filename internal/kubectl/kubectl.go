// SPDX-License-Identifier: Apache-2.0

// Package kubectl holds the commands of kubectl-podwall: they answer questions about the
// network policies of a cluster or of manifests. It owns flags, references to ends of a
// flow, what is printed, and exit statuses.
//
// The answers come from pure packages: explain, netpol/lint. Its own effects are reading
// files, reading the API server and printing. It writes to the API only to add the container of a
// probe, if its user asks for that.
package kubectl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/terminal"
)

// Streams are where the commands write: answers to Out, everything else to Err.
type Streams struct {
	Out, Err io.Writer
	In       io.Reader // of -f -
	// Color is true if Out is a terminal that shows colors.
	Color bool
}

// The exit statuses.
const (
	statusNo         = 1 // denied, or something was found
	statusUsage      = 2 // wrong command line, or no answer
	statusNotWritten = 3 // an object was not read, or is not enforced as written
)

// statusHelp documents the exit statuses in each command's help.
const statusHelp = `3 an object could not be read, or a policy is not
enforced as it is written (stderr says which); 2 no answer: wrong command line,
no such pod, no connection.`

// exit is the error of a command that has said everything already.
type exit struct{ status int }

func (e exit) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// Run runs one command line and returns the exit status.
func Run(ctx context.Context, version string, args []string, s Streams) int {
	s.In = command.Input(ctx, s.In)
	root := newRoot(version, s)
	root.SetArgs(args)
	err := command.Check(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	var e exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.status
	}
	for line := range strings.SplitSeq("kubectl-podwall: "+err.Error(), "\n") {
		fmt.Fprintln(s.Err, terminal.Wrap(logging.Plain(line), "  "))
	}
	return statusUsage
}

func newRoot(version string, s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-podwall",
		Short: "Why network policies allow or deny, on a cluster or on files",
		Long: `kubectl podwall answers questions about the NetworkPolicies of a cluster, or of
manifests (-f), that no cluster has to have: who reaches whom, why, and what
would change it. Answers come from the rules that podwall-agent loads into the
kernel. They hold for every plugin that implements NetworkPolicy as the API
says. Nothing is written to the cluster, except by explain --probe --ephemeral.

Exit status: 0 answered, and the answer is yes; 1 the answer is no (can), or
something was found; ` + statusHelp + ` 130 interrupted.`,
		Example: `  kubectl podwall explain -n shop web-0
  kubectl podwall explain -n shop client web:8080
  kubectl podwall explain -f ./manifests shop/client svc/shop/web:80
  kubectl podwall can -n shop client web:8080 && echo reachable
  kubectl podwall matrix --by namespace
  kubectl podwall diff ./new-policies
  kubectl podwall lint -f ./manifests
  kubectl podwall rules -n shop web-0
  kubectl podwall flows -n shop --follow
  kubectl podwall audit -A --since 24h
  kubectl podwall generate -n shop --since 24h
  kubectl podwall status
  kubectl podwall wait -n shop web --for=enforced
  kubectl podwall bundle
  kubectl podwall ui`,
		Version: version,
		Args:    command.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newExplain(s), newCan(s),
		newMatrix(s), newDiff(s), newLint(s), newRules(s), newFlows(s), newAudit(s),
		newGenerate(s), newStatus(s), newWait(s),
		newBundle(s, version), newUI(s))
	command.Setup(root, s.Out, s.Err)
	return root
}
