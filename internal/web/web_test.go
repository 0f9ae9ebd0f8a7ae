// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/web"
)

func serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := web.New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }), nil)
	go server.Serve(l)
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

func get(t *testing.T, at string) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + at)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "hello" {
		t.Errorf("the page is %q (%v)", body, err)
	}
}

// open makes connections that send some bytes and no whole request.
func open(t *testing.T, at, text string, count int) (list []net.Conn) {
	t.Helper()
	for range count {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// closed counts the connections that the server has closed.
func closed(list []net.Conn) (n int) {
	for _, c := range list {
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
				n++
			}
		}
	}
	return n
}

// Whoever opens connections and sends nothing, or half a request, closes his own first, and hinders nobody.
func TestConnectionsThatWaitAreBounded(t *testing.T) {
	for _, text := range []string{"", "GET / HTT"} {
		at := serve(t)
		first := open(t, at, text, 10)
		others := open(t, at, text, 60)
		get(t, at)
		// 70 of them and the probe, of which 64 may wait.
		end := time.Now().Add(3 * time.Second) // less than the time for a header
		for closed(first) < 6 && time.Now().Before(end) {
			time.Sleep(10 * time.Millisecond)
		}
		if n := closed(first); n < 6 || n > 8 {
			t.Errorf("sending %q: %d of the first ten connections are closed, want 6 or 7", text, n)
		}
		if n := closed(others); n != 0 {
			t.Errorf("sending %q: %d of the later connections are closed", text, n)
		}
		get(t, at)
	}
}

// Connections that answered a request wait for the next, and do not count while they answer.
func TestAConnectionIsUsedAgain(t *testing.T) {
	at := serve(t)
	c := open(t, at, "", 1)[0]
	for range 3 {
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(b); err != nil || n == 0 {
			t.Fatalf("read %d bytes: %v", n, err)
		}
	}
}
