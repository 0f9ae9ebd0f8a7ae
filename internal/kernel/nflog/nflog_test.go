// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nflog_test

import (
	"errors"
	"fmt"
	"maps"
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

// Of a connection that was translated the first destination is told, also if the packet is dropped before the
// connection table has its entry. Answers have none.
func TestTheFirstDestinationIsTold(t *testing.T) {
	ns := namespace(t)
	nftrun.Run(t, ns, `table inet n {
	chain out {
		type nat hook output priority -100
		meta nfproto ipv4 udp dport 9999 dnat ip to 127.0.0.1:7778
		meta nfproto ipv6 udp dport 9999 dnat ip6 to [::1]:7778
	}
	chain post {
		type nat hook postrouting priority -190
		udp dport 7778 log prefix "translated" group 9 drop
	}
	chain every {
		type filter hook output priority 10
		udp sport 6666 log prefix "answer" group 9
		udp dport 6666 log prefix "plain" group 9
	}
}`, "-f", "-")
	l, err := listen(t, ns, 9)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := ns.Do(func() error { return callAll("127.0.0.2:9999", "[::1]:9999") }); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(answered); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"translated 127.0.0.2:9999": 1, "translated [::1]:9999": 1, "plain 127.0.0.1:6666": 1,
		"answer invalid AddrPort": 1}
	if !l.Originals() { // this kernel was built without CONFIG_NETFILTER_NETLINK_GLUE_CT
		const none = " invalid AddrPort"
		want = map[string]int{"translated" + none: 2, "plain" + none: 1, "answer" + none: 1}
	}
	got := map[string]int{}
	for deadline := time.Now().Add(time.Minute); len(got) < len(want) && time.Now().Before(deadline); {
		list, err := l.Receive(time.Now().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			got[p.Prefix+" "+p.Original.String()]++
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("received %v, want %v", got, want)
	}
}

// callAll sends a datagram to each address; that a rule drops it is no error.
func callAll(addrs ...string) error {
	for _, a := range addrs {
		c, err := net.Dial("udp", a)
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil && !errors.Is(err, os.ErrPermission) {
			return errors.Join(err, c.Close())
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// answered has a datagram answered.
func answered() error {
	server, err := net.ListenPacket("udp", "127.0.0.1:6666")
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := net.Dial("udp", "127.0.0.1:6666")
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		return err
	}
	b := make([]byte, 1)
	_, from, err := server.ReadFrom(b)
	if err != nil {
		return err
	}
	_, err = server.WriteTo(b, from)
	return err
}
