// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/bench/plot"
	"github.com/podwall/podwall/internal/lab/measure"
)

// benchFlags are the flags of all measurements.
type benchFlags struct {
	out    string
	format string
	quick  bool
}

func newBench(version string, s Streams, kinds ...func(version string, s Streams) *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what the agent costs, next to the same node without it",
		Long: `bench measures on this machine. The settings that are compared take turns in one
run; each row is a median with the interval that holds the true one in 95 of 100
runs, and its ratio to the base of the same round. A second base, "no agent
again", shows how much of a difference is noise.

Machines that do other work at the same time give wide intervals: look at them
before you look at the medians.

` + benchStatusHelp,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, k := range kinds {
		cmd.AddCommand(k(version, s))
	}
	return cmd
}

func (b *benchFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&b.out, "out", "", "also write the report as JSON, and its plots, into `DIR`")
	f.StringVarP(&b.format, "output", "o", "table", "what is printed: `table|markdown|json`")
	f.BoolVar(&b.quick, "quick", false, "few rounds: to see that it works, not to believe the figures")
}

func (b *benchFlags) check() error {
	switch b.format {
	case "table", "markdown", "json":
		return nil
	}
	return fmt.Errorf("unknown output %q, want table, markdown or json", b.format)
}

// measured runs a measurement, prints its report and keeps it. A bar that is not
// met is no failure of the command: the report says so.
func (b *benchFlags) measured(cmd *cobra.Command, version string, s Streams, run func(context.Context,
	*bench.Report) error) error {
	machine, err := measure.Machine()
	if err != nil {
		return err
	}
	r := &bench.Report{Command: line(cmd), Version: version, Date: time.Now().UTC().Format(time.DateOnly),
		Machine: machine}
	if err := run(cmd.Context(), r); err != nil {
		return err
	}
	if b.out != "" {
		if err := keep(b.out, cmd.Name(), r); err != nil {
			return err
		}
	}
	switch b.format {
	case "json":
		return r.WriteJSON(s.Out)
	case "markdown":
		return r.WriteMarkdown(s.Out)
	}
	return r.WriteTable(s.Out)
}

// line is the command as it can be typed again, without where it writes to.
func line(cmd *cobra.Command) string {
	text := []string{cmd.CommandPath()}
	for _, a := range []string{"quick", "rounds", "peer", "wiring", "services", "pods", "concurrency", "requests",
		"only", "datapath", "sizes", "changes", "rush"} {
		if f := cmd.Flags().Lookup(a); f != nil && f.Changed {
			for _, v := range values(f.Value) {
				text = append(text, "--"+a+"="+v)
			}
		}
	}
	return strings.Join(text, " ")
}

// values are those of a flag, as a shell reads them.
func values(v fmt.Stringer) []string {
	list := []string{v.String()}
	if many, ok := v.(interface{ GetSlice() []string }); ok {
		list = many.GetSlice()
	}
	for i, one := range list {
		if strings.ContainsAny(one, " ;$'\"") {
			list[i] = "'" + strings.ReplaceAll(one, "'", `'\''`) + "'"
		}
	}
	return list
}

// keep writes the report to DIR/NAME.json, and each of its plots beside it as
// SVG and as PNG.
func keep(dir, name string, r *bench.Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the directory of the report: %w", err)
	}
	if err := save(filepath.Join(dir, name+".json"), r.WriteJSON); err != nil {
		return err
	}
	for _, p := range r.Plots {
		base := filepath.Join(dir, p.Name)
		err := errors.Join(
			save(base+".svg", func(w io.Writer) error { return plot.WriteSVG(w, p) }),
			save(base+".png", func(w io.Writer) error { return plot.WritePNG(w, p) }))
		if err != nil {
			return err
		}
	}
	return nil
}

func save(file string, write func(io.Writer) error) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return errors.Join(write(f), f.Close())
}
