// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

type canCommand struct {
	source *source
	output output
	quiet  bool
}

func newCan(s Streams) *cobra.Command {
	c := &canCommand{source: newSource(s)}
	cmd := &cobra.Command{
		Use:   "can SRC DST[:PORT]",
		Short: "Say whether a flow is allowed, by the exit status too",
		Long: `can answers yes or no: whether the first packet of a connection passes. Through a
Service the answer is yes if it passes to every pod behind it.

` + endHelp + `

` + portHelp + `

Exit status: 0 yes; 1 no; ` + statusHelp,
		Example: `  kubectl podwall can -n shop client web:8080
  kubectl podwall can -f ./manifests outside shop/web:80 && echo "open to all"`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.source.bind(cmd)
	c.output.bind(cmd)
	cmd.ValidArgsFunction = c.source.complete
	cmd.Flags().BoolVarP(&c.quiet, "quiet", "q", false, "print nothing, only exit")
	return cmd
}

func (c *canCommand) run(ctx context.Context, args []string) error {
	if err := c.output.check(); err != nil {
		return err
	}
	sc, err := c.source.open(ctx)
	if err != nil {
		return err
	}
	report, err := sc.report(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	if !c.quiet {
		if err := c.output.print(c.source.streams, report.line(), report); err != nil {
			return err
		}
	}
	return sc.status(!report.Allowed)
}

// line is yes or no, and how many paths are allowed where they differ.
func (r *flowReport) line() string {
	passed := 0
	for _, a := range r.Answers {
		if a.Allowed {
			passed++
		}
	}
	switch {
	case r.Allowed:
		return "yes\n"
	case passed > 0:
		return fmt.Sprintf("no: %d of %d paths are allowed, see explain\n", passed, len(r.Answers))
	}
	return "no\n"
}
