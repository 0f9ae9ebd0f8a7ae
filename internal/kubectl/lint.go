// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/netpol/lint"
	"github.com/podwall/podwall/internal/source/manifest"
)

// lintSchema names the form of the JSON of lint.
const lintSchema = "podwall.lint/v1"

type lintCommand struct {
	source *source
	output output
}

func newLint(s Streams) *cobra.Command {
	l := &lintCommand{source: newSource(s)}
	cmd := &cobra.Command{
		Use:   "lint [FILE...]",
		Short: "Find probable mistakes in policies",
		Long: `lint reads files, directories, or the cluster if none is named, and reports:

  reader             what is not enforced as written, or has no effect: errors,
                     rules of a direction that policyTypes does not list, blocks
                     that others read in another way
  no-subject         a podSelector that selects no pod of its namespace
  no-peer            a peer that no pod is
  empty-namespace    a policy in a namespace without pods
  absent-namespace   a policy in, or a peer from, a namespace that is not there
  undeclared-port    a named port that none of the pods declares
  undeclared-number  a port number that none of the pods declares, though all of
                     them declare ports: often that of the Service
  empty-block        except ranges that together cover their block
  refilled-except    an except range that another block of the rule allows again
  no-dns             pods that may open connections, and may not ask for names

The pods of a cluster change, so all but reader are questions. Without pods in the
files only what a policy says by itself is checked. The form of -o json is
` + lintSchema + `.

Exit status: 0 nothing was found, 1 something was, 3 an object could not be read,
or a policy is not enforced as it is written; 2 wrong command line, no connection.`,
		Example: `  kubectl podwall lint
  kubectl podwall lint ./manifests
  kubectl get ns,pods,netpol -A -o yaml | kubectl podwall lint -`,
		RunE: func(cmd *cobra.Command, args []string) error { return l.run(cmd.Context(), args) },
	}
	l.source.bind(cmd)
	l.output.bind(cmd)
	return cmd
}

// lintReport is the answer of lint.
type lintReport struct {
	Schema   string        `json:"schema"`
	Findings []lintFinding `json:"findings"`
}

type lintFinding struct {
	Check string `json:"check"`
	cluster.Diagnostic
}

// byReader is the check of what the reader of the objects found.
const byReader = "reader"

func (l *lintCommand) run(ctx context.Context, args []string) error {
	if err := l.output.check(); err != nil {
		return err
	}
	l.source.from.Paths = append(l.source.from.Paths, args...)
	sc, err := l.source.read(ctx)
	podless := errors.Is(err, complete.ErrNoPods)
	if podless {
		sc, err = withoutPods(l.source.from)
	}
	if err != nil {
		return err
	}
	for _, text := range sc.notes {
		l.source.say(text)
	}
	r := sc.lint(podless)
	if err := l.output.print(l.source.streams, r.String(), r); err != nil {
		return err
	}
	if !sc.asWritten {
		return exit{statusNotWritten}
	}
	return sc.status(len(r.Findings) > 0)
}

// withoutPods is the scene of manifests that have no pods.
func withoutPods(from manifest.From) (*scene, error) {
	loaded, err := manifest.Load(from)
	if err != nil {
		return nil, err
	}
	sc := newScene(loaded.Snapshot(), nil)
	sc.asWritten = loaded.AsWritten()
	sc.found = slices.DeleteFunc(loaded.Diagnostics, complete.IsUnused)
	sc.notes = []string{"no pods: only what policies say by themselves is checked"}
	return sc, nil
}

// lint reports all findings, those of the reader first.
func (sc *scene) lint(podless bool) lintReport {
	r := lintReport{Schema: lintSchema, Findings: []lintFinding{}}
	for _, d := range sc.found {
		r.Findings = append(r.Findings, lintFinding{byReader, d})
	}
	snap := sc.snap
	if sc.named != nil {
		snap = complete.Existing(snap, sc.named)
	}
	for _, f := range lint.All(snap, lint.Facts{ContainerPorts: sc.declared}) {
		if !podless || f.Kind == lint.EmptyBlock || f.Kind == lint.RefilledExcept {
			r.Findings = append(r.Findings, lintFinding{f.Kind.String(), f.Diagnostic})
		}
	}
	return r
}

// String returns the findings for people, a paragraph for each.
func (r lintReport) String() string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s [%s]\n", f.Diagnostic, f.Check)
	}
	switch n := len(r.Findings); n {
	case 0:
		b.WriteString("nothing found\n")
	case 1:
		b.WriteString("1 finding\n")
	default:
		fmt.Fprintf(&b, "%d findings\n", n)
	}
	return b.String()
}
