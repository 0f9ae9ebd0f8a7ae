// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command podwall-gate holds a pod's start until the kernel has its verdicts.
// Container runtimes run it as a chained CNI plugin (with CNI_COMMAND set), or
// it runs as a plugin of their Node Resource Interface; people run it to install
// the former. See docs/gate.md.
//
// Exit status: 0 done, 1 failed (as a CNI plugin: with the error on standard
// output), 2 wrong command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/gate/cni"
	"github.com/podwall/podwall/internal/terminal"
)

// version is set by the build.
var version = "development"

func main() {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(cni.New(skeleton).Main(version))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `podwall-gate holds a pod's start until the kernel has its verdicts.

  podwall-gate install          add the CNI plugin to the pod network's
                                configuration; with --watch, each time that
                                the configuration is written again
  podwall-gate uninstall        remove it from there
  podwall-gate status           whether it is in use, and an agent answers
  podwall-gate list             list the announced pods
  podwall-gate nri              run as a plugin of the Node Resource Interface
                                instead
  podwall-gate serve, connect   the two ends of deploy/connectivity-check.sh
  podwall-gate version

Container runtimes run it as a CNI plugin, with CNI_COMMAND set.
Flags of a command: podwall-gate COMMAND --help

` + statusHelp

const statusHelp = `Exit status: 0 done; 1 failed, as a CNI plugin with the error on standard
output; 2 wrong command line.
`

// errUsage says that the command line is wrong; it has been explained.
var errUsage = errors.New("wrong command line")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	var err error
	switch args[0] {
	case "install", "uninstall", "status":
		err = installer(ctx, args[0], args[1:], stdout, stderr)
	case "list":
		err = list(ctx, args[1:], stdout, stderr)
	case "nri":
		err = serveNRI(ctx, args[1:], stderr)
	case "serve":
		err = serve(ctx, args[1:], stderr)
	case "connect":
		err = connect(ctx, args[1:], stdout, stderr)
	case "version", "--version":
		fmt.Fprintln(stdout, "podwall-gate", version)
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprintf(stderr, "podwall-gate: unknown command %q\n%s", args[0], usage)
		err = errUsage
	}
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(asked)):
		fmt.Fprint(stdout, err)
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintf(stderr, "podwall-gate: %v\n", err)
	return 1
}

// newFlags returns the flags of a command, none so far.
func newFlags(command string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("podwall-gate "+command, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {} // an error is one line; what was asked for is printed by run
	return f
}

// socketFlag adds the flag of the commands that ask the agent.
func socketFlag(f *flag.FlagSet) *string {
	return f.String("socket", "", "the agent's --gate-socket (default "+gate.DefaultSocket+")")
}

// asked is not an error, but the help that was asked for.
type asked string

func (a asked) Error() string { return string(a) }

// helpOf lists the flags of a command, in lines that fit a terminal.
func helpOf(f *flag.FlagSet) asked {
	var b strings.Builder
	fmt.Fprintf(&b, "Flags of %s:\n", f.Name())
	f.VisitAll(func(v *flag.Flag) {
		kind, text := flag.UnquoteUsage(v)
		if v.DefValue != "" && v.DefValue != "false" {
			text += " (default " + v.DefValue + ")"
		}
		fmt.Fprintf(&b, "  --%s\n%s\n", strings.TrimSpace(v.Name+" "+kind), terminal.Wrap("        "+text, "        "))
	})
	return asked(b.String() + "\n" + statusHelp)
}

func parse(f *flag.FlagSet, args []string) error {
	err := f.Parse(args)
	switch {
	case err == nil && f.NArg() > 0:
		fmt.Fprintf(f.Output(), "%s: unexpected argument %q\n", f.Name(), f.Arg(0))
		return errUsage
	case errors.Is(err, flag.ErrHelp):
		return helpOf(f)
	case err == nil:
		return nil
	}
	fmt.Fprintf(f.Output(), "%s --help lists the flags\n", f.Name())
	return errUsage // flag has said what is wrong
}

func installer(ctx context.Context, command string, args []string, stdout, stderr io.Writer) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	f := newFlags(command, stderr)
	socket := socketFlag(f)
	i := cni.Installer{Program: program, Entry: cni.Entry{Type: cni.Name}, Out: stdout}
	f.StringVar(&i.ConfDir, "conf-dir", cni.DefaultConfDir, "directory of network configurations")
	f.StringVar(&i.BinDir, "bin-dir", cni.DefaultBinDir, "directory of CNI plugins")
	if command == "uninstall" {
		f.StringVar(&i.CacheDir, "cache-dir", cni.DefaultCacheDir,
			"directory in which runtimes note what sandboxes were started with")
	}
	watch := new(bool)
	if command == "install" {
		f.StringVar(&i.Entry.Timeout, "timeout", "", "how long a pod's start waits (default "+
			cni.DefaultTimeout.String()+")")
		f.StringVar(&i.Entry.OnTimeout, "on-timeout", "", "isolated: the pod starts closed (default); refuse: it "+
			"does not start")
		f.BoolVar(watch, "watch", false, "go on, and install again whenever the pod network writes its "+
			"configuration again")
	}
	if err := parse(f, args); err != nil {
		return err
	}
	i.Entry.Socket = *socket
	switch {
	case command == "uninstall":
		return uninstall(ctx, i)
	case command == "status":
		return i.Status(ctx)
	}
	if err := i.Entry.Check(); err != nil {
		return err
	}
	if *watch {
		return i.Watch(ctx)
	}
	return i.Install()
}

// uninstall tells the agent too: else pods that start without the gate are a problem. An
// agent that does not answer has none.
func uninstall(ctx context.Context, i cni.Installer) error {
	agent := gate.Client{Socket: i.Socket()} // read before the entry goes
	if err := i.Uninstall(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := agent.Off(ctx); err != nil {
		fmt.Fprintf(i.Out, "no agent was notified on %s: %v\n", agent.Socket, err)
	}
	return nil
}

func list(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("list", stderr)
	socket := socketFlag(f)
	if err := parse(f, args); err != nil {
		return err
	}
	if *socket == "" {
		*socket = gate.DefaultSocket
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	known, err := gate.Client{Socket: *socket}.List(ctx)
	for _, k := range known {
		fmt.Fprintf(stdout, "%-12.12s %-11s %s/%s %v %s\n", k.Pod.Sandbox, k.State, k.Pod.Namespace, k.Pod.Name,
			k.Pod.IPs, k.Text)
	}
	return err
}
