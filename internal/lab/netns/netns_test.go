// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Main(m) }

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// here names the namespace of the calling thread.
func here(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return name
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, ns, want := here(t), newNS(t), errors.New("as given")
	for range 100 {
		err := ns.Do(func() error {
			if here(t) == home {
				t.Error("did not enter the namespace")
			}
			return want
		})
		if err != want {
			t.Fatalf("got error %v, want the one of the function", err)
		}
	}
	// Every thread that the runtime has must be back.
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		name, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net")
		if err == nil && name != home {
			t.Errorf("thread %s stayed in %s", thread.Name(), name)
		}
	}
}

func TestANamespaceHasNothingButLoopback(t *testing.T) {
	err := newNS(t).Do(func() error {
		links, err := net.Interfaces()
		if len(links) != 1 || links[0].Name != "lo" || links[0].Flags&net.FlagUp == 0 {
			t.Errorf("links are %v, want loopback only, up", links)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The kernel sends the death signal when a thread ends, and threads end in
// programs that use namespaces.
func TestAProcessOutlivesThreads(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := newNS(t).Start(cmd); err != nil {
		t.Fatal(err)
	}
	var locked, gone sync.WaitGroup
	const more = 50 // than there are idle threads
	locked.Add(more)
	for range more {
		gone.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			locked.Done()
			locked.Wait()
		})
	}
	gone.Wait()
	// Threads end a moment later than their goroutines.
	for range 100 {
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Errorf("the process did not end by itself: %v", err)
	}
}

func TestProcessesStartInsideAndCanOpenThePath(t *testing.T) {
	ns := newNS(t)
	cmd := exec.Command("readlink", "/proc/self/ns/net", ns.Path())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	var inside, path string
	if _, err := fmt.Sscan(string(text), &inside, &path); err != nil {
		t.Fatal(err)
	}
	if inside != path || inside == here(t) {
		t.Errorf("process ran in %s, the path leads to %s, this is %s", inside, path, here(t))
	}
}

func TestConnectionsStayInside(t *testing.T) {
	ns := newNS(t)
	l, err := ns.Listen(t.Context(), "tcp", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := ns.Dial(t.Context(), "tcp", "127.0.0.1:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if other, err := newNS(t).Dial(t.Context(), "tcp", "127.0.0.1:7777"); err == nil {
		_ = other.Close()
		t.Error("the listener can be reached from another namespace")
	}
	if _, err := ns.Dial(t.Context(), "tcp", "localhost:7777"); err == nil {
		t.Error("a name was accepted, which would be looked up outside")
	}
}

func TestSysctlsAreOfTheNamespace(t *testing.T) {
	const file = "/proc/sys/net/ipv4/ip_default_ttl"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ns := newNS(t)
	settings := []netns.Sysctl{{Path: "ipv4/ip_default_ttl", Value: "33"}, {Path: "ipv4/no_such_thing", Value: "1", Optional: true}}
	if err := ns.SetSysctls(settings); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
		t.Errorf("outside it is %q (error %v), was %q", after, err, before)
	}
	if err := ns.SetSysctls([]netns.Sysctl{{Path: "ipv4/no_such_thing", Value: "1"}}); err == nil {
		t.Error("a missing setting was no error")
	}
}

// A client's background dialing may outlive the bed.
func TestANamespaceMayBeClosedWhileOthersEnterIt(t *testing.T) {
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	var others sync.WaitGroup
	for range 8 {
		others.Go(func() {
			for ns.Do(func() error { return nil }) == nil {
			}
		})
	}
	if err := ns.Close(); err != nil {
		t.Error(err)
	}
	others.Wait() // they see that it is closed
}
