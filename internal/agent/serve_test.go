// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

const serveMarker = "PODWALL_SERVE_TEST"

// A service proxy that had a panic leaves neither sockets nor goroutines, names or problems of its loop. All of
// it is real, in a process that has a network namespace of its own.
func TestNothingIsLeftOfAProxyThatHadAPanic(t *testing.T) {
	if os.Getenv(serveMarker) != "" {
		serveWithAPanic(t)
		return
	}
	ns := nftrun.Namespace(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), serveMarker+"=1")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, &out)
	}
}

func serveWithAPanic(t *testing.T) {
	_, o, _ := states()
	store := cluster.NewStore()
	p := newProxy(config.Config{RunServiceProxy: true, NodeName: "n1", SyncPeriod: time.Hour, SysctlRoot: t.TempDir()},
		store, o, nil, slog.New(slog.DiscardHandler))
	vip := netip.MustParseAddr("10.96.0.1")
	store.Update(func(tx *cluster.Tx) {
		tx.SetNode(&cluster.Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
		tx.SetService(&cluster.Service{Key: cluster.Key{Namespace: "shop", Name: "web"}, ClusterIPs: []netip.Addr{vip},
			Ports: []cluster.ServicePort{{Protocol: cluster.TCP, Port: 80}}})
		for _, k := range cluster.ServiceKinds() {
			tx.SetSynced(k)
		}
	})
	named, problems := "", 0
	p.ready = func() {
		named = p.Named(inet.TCP, netip.AddrPortFrom(vip, 80))
		problems = len(o.Status().Problems)
		panic("an odd Service")
	}
	var before [2]int
	for round := range 2 { // the first one opens what the process keeps
		err := p.serve(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "panic: an odd Service\n") {
			t.Fatalf("it ended with %v", err)
		}
		if named == "" || problems == 0 {
			t.Fatalf("while it ran it named %q, and had %d problems: this test shows nothing", named, problems)
		}
		if got := p.Named(inet.TCP, netip.AddrPortFrom(vip, 80)); got != "" {
			t.Errorf("it names %s", got)
		}
		if list := o.Status().Problems; len(list) > 0 {
			t.Errorf("problems of the loop stay: %v", list)
		}
		now := [2]int{sockets(t), runtime.NumGoroutine()}
		more := func() bool { return round > 0 && (now[0] > before[0] || now[1] > before[1]) }
		for end := time.Now().Add(time.Minute); more() && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond) // what has ended is counted a little longer
			now = [2]int{sockets(t), runtime.NumGoroutine()}
		}
		if more() {
			t.Errorf("sockets and goroutines %v, want %v as after the round before", now, before)
		}
		before = now
		store.RestartServices()
	}
}

// sockets returns how many this process has.
func sockets(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
