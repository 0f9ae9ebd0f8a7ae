// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/kubectl/page"
	"github.com/podwall/podwall/internal/web"
)

// closing is how long the last answers may take when the page ends.
const closing = 2 * time.Second

type uiCommand struct {
	source  *source
	address string
	port    uint16
	// agents and facts are those of the cluster; set in tests.
	agents agents
	facts  clusterFacts
}

func newUI(s Streams) *cobra.Command { return (&uiCommand{source: newSource(s)}).command() }

func (c *uiCommand) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Show all of this as a page in a browser of this machine",
		Long: `ui serves a page on the loopback, of a cluster or of files, and prints its address.
It shows who reaches whom as a graph of namespaces and workloads; choose two ends,
joined or not, and it explains the flow as explain does. It lists the policies with
their findings, as lint, and on a cluster how many nodes enforce each, as status,
and what is denied at the moment, as flows --follow.

The page is for you alone: it listens on a loopback address only, needs the token
in the printed address, and shows what your kubeconfig may read.
What is denied and enforced needs the rights of flows and status. Nothing is
written anywhere. It ends with Ctrl-C.

Exit status: 0 ended by a signal; ` + uiStatusHelp,
		Example: `  kubectl podwall ui
  kubectl podwall ui -f ./manifests --port 8088`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.source.bind(cmd)
	c.source.bindAgents(cmd)
	f := cmd.Flags()
	f.StringVar(&c.address, "address", "127.0.0.1", "loopback `ADDRESS` to listen at: 127.0.0.1 or ::1")
	f.Uint16Var(&c.port, "port", 0, "`PORT` to listen at; 0 for one that is free")
	return cmd
}

const uiStatusHelp = `2 no page: wrong command line, no
connection to the cluster, or the port is taken.`

// run serves the page until ctx ends.
func (c *uiCommand) run(ctx context.Context) error {
	at, err := page.ParseLoopback(c.address)
	if err != nil {
		return err
	}
	state := newUIState(c.source)
	err = state.read(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(at, c.port).String())
	if err != nil {
		return fmt.Errorf("opening the page's port: %w; name another one with --port", err)
	}
	running, end := context.WithCancel(ctx)
	defer end()
	live := newUILive(running, c, state)
	defer live.wait()
	defer end() // before live.wait
	bound := listener.Addr().(*net.TCPAddr).AddrPort()
	token := page.NewToken()
	handler, err := page.New(page.Options{Address: bound, Token: token, Answers: uiAnswers(state, live),
		Streams: []string{uiFlows}})
	if err != nil {
		listener.Close()
		return err
	}
	fmt.Fprintf(c.source.streams.Out, "Open %s\nThe address has the token of the page: keep it to yourself. "+
		"Ctrl-C ends it.\n", page.URL(bound, token))
	return serve(ctx, listener, handler)
}

// serve answers until ctx ends, and gives the last answers a moment.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := web.New(handler, nil)
	server.BaseContext = func(net.Listener) context.Context { return ctx } // answers end with it
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving the page: %w", err)
	case <-ctx.Done():
	}
	last, end := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer end()
	if err := server.Shutdown(last); err != nil {
		_ = server.Close() // whoever is left has had its time
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the page: %w", err)
	}
	return nil
}
