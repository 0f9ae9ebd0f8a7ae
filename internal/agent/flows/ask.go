// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/datapath"
)

// Ask copies the answer of this node's agent to out, line by line: see denied.Line. It ends with the
// answer, or with ctx if it follows. Only root is answered.
func Ask(ctx context.Context, out io.Writer, since time.Time, follow bool) error {
	return read(ctx, out, "/flows", url.Values{
		"since": {since.Format(time.RFC3339Nano)}, "follow": {strconv.FormatBool(follow)}})
}

// Page copies a page of this node's agent to out: see Server.Pages. Only root is answered.
func Page(ctx context.Context, out io.Writer, path string) error { return read(ctx, out, path, nil) }

func read(ctx context.Context, out io.Writer, path string, query url.Values) error {
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	question := url.URL{Scheme: "http", Host: "agent", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, question.String(), nil)
	if err != nil {
		return fmt.Errorf("asking the agent: %w", err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("asking the agent: %w", reason(err))
	}
	defer func() { _ = answer.Body.Close() }() // it is read to its end, or ctx ended
	if answer.StatusCode != http.StatusOK {
		const longest = 1 << 10
		text, _ := io.ReadAll(io.LimitReader(answer.Body, longest)) // the status says enough
		return fmt.Errorf("asking the agent: %s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	if _, err := io.Copy(out, answer.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("reading the agent's answer: %w", err)
	}
	return nil
}

// dial connects to the server, and to nobody else who has its socket.
func dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", Socket)
	if err != nil {
		return nil, err
	}
	if ours, who, err := datapath.Peer(conn); err != nil || !ours {
		return nil, errors.Join(fmt.Errorf("%s has the socket %s and is no agent", who, Socket), err, conn.Close())
	}
	return conn, nil
}

// reason says what a failure to connect means.
func reason(err error) error {
	if errors.Is(err, unix.ECONNREFUSED) {
		return errors.New("no podwall-agent answers in this network namespace; run it on the node, or in the " +
			"agent's pod")
	}
	return err
}
