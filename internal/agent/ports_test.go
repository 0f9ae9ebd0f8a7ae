// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/observe"
)

// A port that another program has, whoever's, keeps the agent from answering there
// and from nothing else. It answers as soon as it can.
func TestAPortThatIsTakenStopsNothing(t *testing.T) {
	for name, uid := range map[string]uintptr{"root": 0, "another user": 65534} {
		t.Run(name, func(t *testing.T) {
			apart.Run(t, func(t *testing.T) { takenPort(t, uid) })
		})
	}
}

func takenPort(t *testing.T, uid uintptr) {
	taken := listener(t, uid)
	o := observe.New(observe.NewRegistry(), observe.Info{Node: "n1", Period: time.Hour})
	list, err := openPorts(o, observe.Endpoints{Health: taken.Addr().String(), Metrics: "127.0.0.1:0", MetricsPath: "/metrics"})
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	problems := o.Status().Problems
	if len(problems) != 1 || problems[0].Subject != "port for health" || problems[0].Blocking ||
		strings.Contains(problems[0].Text, "a user's process") != (uid != 0) {
		t.Errorf("the problems are %+v", problems)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, len(list))
	for _, p := range list {
		go func() { ended <- p.Run(ctx) }()
	}
	get := func(url string) string {
		response, err := http.Get(url)
		if err != nil {
			return ""
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return string(text)
	}
	if text := get("http://" + list[1].server.Addrs()[0].String() + "/metrics"); !strings.Contains(text, "podwall_ready") {
		t.Error("metrics are not served while the port for health is taken")
	}
	_ = taken.Close()
	for limit := time.Now().Add(time.Minute); get("http://"+taken.Addr().String()+"/healthz") != "OK"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the port is free and nobody answers")
		}
	}
	if problems := o.Status().Problems; len(problems) != 0 {
		t.Errorf("the problems are %+v, although the port is free", problems)
	}
	cancel()
	for range list {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// An address that the node does not have yet is waited for, too.
func TestAnAddressThatIsNotThereYetStopsNothing(t *testing.T) {
	o := observe.New(observe.NewRegistry(), observe.Info{})
	list, err := openPorts(o, observe.Endpoints{Health: "192.0.2.1:20244"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		p.close()
	}
	if p := o.Status().Problems; len(p) != 1 || !strings.Contains(p[0].Cure, "give the node the address") {
		t.Errorf("the problems are %+v", p)
	}
	if name := (&net.OpError{Op: "listen", Err: &net.DNSError{Err: "server misbehaving", Name: "node"}}); !canPass(name) {
		t.Error("a name that DNS does not know yet is not waited for")
	}
	if _, err := openPorts(o, observe.Endpoints{Health: "127.0.0.1:99999"}); err == nil {
		t.Error("a port that cannot be is no error")
	}
}
