// SPDX-License-Identifier: Apache-2.0

//go:build linux

package socket

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

func TestMain(m *testing.M) { entry.Main(m) }

// enough is for an answer on a busy machine; brief is for what never answers.
const (
	enough = 2 * time.Minute
	brief  = time.Second
)

// firewall is between the pods of the test. Ports 80 to 82 pass.
const firewall = `table inet t {
	chain forward {
		type filter hook forward priority 0
		th dport 90 drop
		tcp dport 91 reject with tcp reset
		th dport 92 reject
		th dport 93 reject with icmpx admin-prohibited
		th dport 94 reject with icmpx no-route
	}
}`

// stage has a pod that asks and one that answers, on a node between them.
type stage struct {
	asker, server *lab.Endpoint
}

func newStage(t *testing.T) stage {
	t.Helper()
	b, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: []string{"node1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	pod := func(name string, n int) *lab.Endpoint {
		e, err := b.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: "x", Name: name}, Node: "node1", IPs: []netip.Addr{
			netip.MustParseAddr(fmt.Sprintf("10.244.1.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd00:244:1::%d", n))}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	s := stage{asker: pod("asker", 5), server: pod("server", 6)}
	nftrun.Run(t, b.Node("node1").NS, firewall, "-f", "-")
	return s
}

// serve listens at TCP port 80, and by UDP at ports 81, where it answers, and 82, where it does not.
func (s stage) serve(t *testing.T) {
	t.Helper()
	err := s.server.NS.Do(func() error {
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		echo, err := net.ListenPacket("udp", ":81")
		if err != nil {
			return err
		}
		done := make(chan struct{})
		t.Cleanup(func() { _ = echo.Close(); <-done })
		go func() {
			defer close(done)
			var b [512]byte
			for {
				n, from, err := echo.ReadFrom(b[:])
				if err != nil {
					return
				}
				_, _ = echo.WriteTo(b[:n], from)
			}
		}()
		mute, err := net.ListenPacket("udp", ":82")
		if err == nil {
			t.Cleanup(func() { _ = mute.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s stage) target(p inet.Protocol, addr, port int) connect.Target {
	return connect.Target{Protocol: p, To: netip.AddrPortFrom(s.server.Addrs[addr], uint16(port))}
}

func ask(t *testing.T, ns *netns.NS, patience time.Duration, targets ...connect.Target) (r connect.Report) {
	t.Helper()
	if err := ns.Do(func() error { r = Ask(t.Context(), targets, patience); return nil }); err != nil {
		t.Fatal(err)
	}
	return r
}

// Each answer is told from the others, in both families. Those who wait for all of them wait for the last
// one only.
func TestWhatComesBack(t *testing.T) {
	s := newStage(t)
	s.serve(t)
	tests := []struct {
		protocol inet.Protocol
		port     int
		want     connect.Outcome
	}{
		{inet.TCP, 80, connect.Connected},
		{inet.TCP, 89, connect.Refused},  // no listener
		{inet.TCP, 91, connect.Refused},  // a firewall that poses as one without
		{inet.TCP, 92, connect.Rejected}, // port unreachable, which no TCP sends
		{inet.TCP, 93, connect.Rejected},
		{inet.TCP, 94, connect.Unreachable},
		{inet.UDP, 81, connect.Answered},
		{inet.UDP, 89, connect.Refused}, // port unreachable, of the pod
		{inet.UDP, 92, connect.Rejected},
		{inet.UDP, 93, connect.Rejected},
		{inet.UDP, 94, connect.Unreachable},
	}
	for family := range 2 {
		var targets []connect.Target
		for _, tt := range tests {
			targets = append(targets, s.target(tt.protocol, family, tt.port))
		}
		r := ask(t, s.asker.NS, enough, targets...)
		for i, tt := range tests {
			if r.Answers[i] != tt.want {
				t.Errorf("%s: %s, want %s; %s", targets[i], r.Answers[i], tt.want, r.Detail)
			}
		}
	}
}

// What is dropped, and a UDP server that does not answer, are silent; also with others that answer.
func TestSilence(t *testing.T) {
	s := newStage(t)
	s.serve(t)
	for family := range 2 {
		targets := []connect.Target{s.target(inet.TCP, family, 90), s.target(inet.UDP, family, 90), s.target(inet.UDP, family, 82)}
		r := ask(t, s.asker.NS, brief, targets...)
		if want := []connect.Outcome{connect.Silent, connect.Silent, connect.Silent}; !slices.Equal(r.Answers, want) || r.Seconds != 1 {
			t.Errorf("%v: %+v", targets, r)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	err := s.asker.NS.Do(func() error {
		if r := Ask(ctx, []connect.Target{s.target(inet.TCP, 0, 90)}, time.Hour); r.Answers[0] != connect.Silent {
			t.Errorf("%+v", r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What has come when the time is over counts, however late the process runs again.
func TestAnAnswerIsReadWhenTheTimeIsOver(t *testing.T) {
	ns := nftrun.Namespace(t)
	err := ns.Do(func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		to := connect.Target{Protocol: inet.TCP, To: netip.MustParseAddrPort(l.Addr().String())}
		for end := time.Now().Add(enough); ; {
			r := Ask(t.Context(), []connect.Target{to}, 0)
			if r.Answers[0] == connect.Connected {
				return nil
			}
			if time.Now().After(end) {
				return fmt.Errorf("%+v", r)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// Without a route nothing is sent, and a firewall of the pod's own namespace is an error of the socket.
func TestWhatIsNotSent(t *testing.T) {
	ns := nftrun.Namespace(t)
	away, here := netip.MustParseAddrPort("192.0.2.7:80"), netip.MustParseAddrPort("127.0.0.1:80")
	r := ask(t, ns, enough, connect.Target{Protocol: inet.TCP, To: away}, connect.Target{Protocol: inet.UDP, To: away})
	if want := []connect.Outcome{connect.Unreachable, connect.Unreachable}; !slices.Equal(r.Answers, want) || r.Detail != "" {
		t.Errorf("without a route: %+v", r)
	}
	nftrun.Run(t, ns, "table inet t { chain output { type filter hook output priority 0; policy drop; }; }", "-f", "-")
	r = ask(t, ns, enough, connect.Target{Protocol: inet.UDP, To: here})
	if r.Answers[0] != connect.Failed || !strings.Contains(r.Detail, "udp/127.0.0.1:80: operation not permitted") {
		t.Errorf("with a firewall: %+v", r)
	}
}

// A kernel has SCTP or says that it has not.
func TestSCTP(t *testing.T) {
	s := newStage(t)
	want, patience := connect.Unsupported, enough
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		_ = unix.Close(fd)
		want = connect.Refused
	}
	if r := ask(t, s.asker.NS, patience, s.target(inet.SCTP, 0, 80)); r.Answers[0] != want {
		t.Errorf("%+v, want %s", r, want)
	}
	if want == connect.Unsupported {
		return
	}
	err = s.server.NS.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 80}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", unix.Listen(fd, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := ask(t, s.asker.NS, patience, s.target(inet.SCTP, 0, 80)); r.Answers[0] != connect.Connected {
		t.Errorf("with a listener: %+v", r)
	}
	if r := ask(t, s.asker.NS, brief, s.target(inet.SCTP, 0, 90)); r.Answers[0] != connect.Silent {
		t.Errorf("dropped: %+v", r)
	}
}
