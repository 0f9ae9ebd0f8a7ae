// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nflog_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/kernel/nflog"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rules = `table inet t {
	chain out {
		type filter hook output priority 0
		udp dport 7777 log prefix "seven" group 7 snaplen 64
		udp dport 8888 log prefix "eight" group 8
	}
}`

// namespace has a loopback interface and rules that log.
func namespace(t *testing.T) *netns.NS {
	ns := nftrun.Namespace(t)
	nftrun.Run(t, ns, rules, "-f", "-")
	return ns
}

func listen(t *testing.T, ns *netns.NS, group uint16) (l *nflog.Listener, err error) {
	t.Helper()
	if failed := ns.Do(func() error { l, err = nflog.Listen(group, 128); return nil }); failed != nil {
		t.Fatal(failed)
	}
	return l, err
}

func send(t *testing.T, ns *netns.NS, port int, texts ...string) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		defer c.Close()
		for _, text := range texts {
			if _, err := c.Write([]byte(text)); err != nil { // tells of the packet before: the port is closed
				_, _ = c.Write([]byte(text))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPacketsOfTheGroupAreReceived(t *testing.T) {
	ns := namespace(t)
	l, err := listen(t, ns, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	send(t, ns, 8888, "other group")
	send(t, ns, 7777, "first", strings.Repeat("x", 200))
	var got []nflog.Packet
	for deadline := time.Now().Add(time.Minute); len(got) < 2 && time.Now().Before(deadline); {
		list, err := l.Receive(time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, list...)
	}
	if len(got) != 2 || got[0].Prefix != "seven" || !strings.HasSuffix(string(got[0].Payload), "first") ||
		len(got[1].Payload) != 64 || got[0].Out != 1 || got[0].In != 0 || l.Lost() != 0 {
		t.Errorf("received %+v, lost %d", got, l.Lost())
	}
}

func TestAGroupHasOneListener(t *testing.T) {
	ns := namespace(t)
	l, err := listen(t, ns, 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, ns, 7); !errors.Is(err, nflog.ErrTaken) || !strings.Contains(err.Error(), "group 7") {
		t.Errorf("a second listener: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := l.Receive(time.Time{})
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a closed listener receives")
	} else if !errors.Is(err, os.ErrClosed) && !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
	again, err := listen(t, ns, 7)
	if err != nil {
		t.Fatalf("after the first one has gone: %v", err)
	}
	again.Close()
}

// Packets that nobody reads in time are lost and counted, and the listener goes on.
func TestLostPacketsAreCounted(t *testing.T) {
	ns := namespace(t)
	l, err := listen(t, ns, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const sent = 20_000
	send(t, ns, 7777, make([]string, sent)...)
	got := 0
	for deadline := time.Now().Add(time.Minute); got+int(l.Lost()) < sent && time.Now().Before(deadline); {
		list, err := l.Receive(time.Now().Add(200 * time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if got += len(list); len(list) == 0 { // the next number says what is missing
			send(t, ns, 7777, "")
			got--
		}
	}
	if l.Lost() == 0 || got < 500 {
		t.Errorf("of %d packets %d were received, %d lost", sent, got, l.Lost())
	}
}
