// SPDX-License-Identifier: Apache-2.0

// Package command is the part that the command lines of podwall-lab and kubectl-podwall share:
// commands that do not exist are refused, help fits a terminal, programs next to this one are
// found, and Ctrl-C ends a command. It owns no command and no answer.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/terminal"
)

// StatusInterrupted is the exit status that shells use for a program that Ctrl-C ended.
const StatusInterrupted = 130

// Status is the exit status of a command that ended with status, where interrupted ends with a
// signal: a failure after a signal is the signal's.
func Status(interrupted context.Context, status int) int {
	if status != 0 && interrupted.Err() != nil {
		return StatusInterrupted
	}
	return status
}

// Setup gives a program's root command what all programs have alike: output, version, and help
// that is not wider than a terminal. It is called after all commands were added.
func Setup(root *cobra.Command, out, err io.Writer) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SuggestionsMinimumDistance = 2
	root.SetOut(out)
	root.SetErr(err)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ",
		fmt.Sprintf("Flags.FlagUsagesWrapped %d ", terminal.Columns)))
	root.SetVersionTemplate(root.Name() + " {{.Version}}\n")
	fill(root)
}

func fill(cmd *cobra.Command) {
	cmd.Long = terminal.Fill(cmd.Long)
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%w; the form is: %s", err, cmd.UseLine())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		fill(c)
	}
}

// NoArgs refuses arguments that are no flags.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

// Check returns an error if args name a command that root does not have. Without it cobra prints
// the help of the command above, with exit status 0, when -h or help is asked for.
func Check(root *cobra.Command, args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		return nil
	}
	root.InitDefaultCompletionCmd(args...)
	if len(args) > 0 && args[0] == "help" {
		args = args[1:]
	}
	cmd := root
	for _, name := range args {
		if strings.HasPrefix(name, "-") || !cmd.HasSubCommands() {
			return nil
		}
		meant := func(c *cobra.Command) bool { return c.Name() == name || c.HasAlias(name) }
		i := slices.IndexFunc(cmd.Commands(), meant)
		if i < 0 {
			return unknown(cmd, name)
		}
		cmd = cmd.Commands()[i]
	}
	return nil
}

func unknown(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("unknown command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		text += ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(text + "; " + cmd.CommandPath() + " --help lists the commands")
}

// Input returns a reader of r whose Read ends with ctx: reading a terminal, or a pipe that is
// never closed, cannot be interrupted itself. After that nothing more may be read from r.
func Input(ctx context.Context, r io.Reader) io.Reader { return input{ctx, r} }

type input struct {
	ctx context.Context
	r   io.Reader
}

func (i input) Read(b []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	buffer, read := make([]byte, len(b)), make(chan result, 1)
	go func() { // ends with the read, or with the process, which follows the end of ctx
		n, err := i.r.Read(buffer)
		read <- result{n, err}
	}()
	select {
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	case r := <-read:
		return copy(b, buffer[:r.n]), r.err
	}
}
