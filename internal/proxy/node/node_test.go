// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Try(m) }

func TestWhichSettingsChange(t *testing.T) {
	kernel := func(change map[string]int) map[string]int {
		found := map[string]int{settingMax: 262144, settingBuckets: 65536, settingEstablished: 432000, settingCloseWait: 60, settingLiberal: 0}
		for name, value := range change {
			if found[name] = value; value < 0 {
				delete(found, name)
			}
		}
		return found
	}
	timeouts := map[string]int{settingEstablished: 86400, settingCloseWait: 3600}
	with := func(more map[string]int) map[string]int {
		for name, value := range timeouts {
			more[name] = value
		}
		return more
	}
	liberal := Defaults()
	liberal.Liberal = true
	tests := []struct {
		name  string
		set   Tracking
		cores int
		found map[string]int
		want  map[string]int
	}{
		{"the kernel's defaults, 8 processors", Defaults(), 8, kernel(nil), with(map[string]int{})},
		{"9 processors", Defaults(), 9, kernel(nil), with(map[string]int{settingMax: 294912, settingBuckets: 73728})},
		{"a small node", Defaults(), 1, kernel(map[string]int{settingMax: 65536, settingBuckets: 16384}),
			with(map[string]int{settingMax: 131072, settingBuckets: 32768})},
		{"a larger table than ours", Defaults(), 2, kernel(map[string]int{settingMax: 1 << 20}), with(map[string]int{})},
		{"few buckets", Defaults(), 4, kernel(map[string]int{settingBuckets: 1024}), with(map[string]int{settingBuckets: 32768})},
		{"a table without a limit", Defaults(), 64, kernel(map[string]int{settingMax: 0, settingBuckets: 1 << 20}), with(map[string]int{})},
		{"settings of an operator who is stricter", Defaults(), 4,
			kernel(map[string]int{settingEstablished: 600, settingCloseWait: 7200}), map[string]int{}},
		{"as kube-proxy left them", Defaults(), 4, kernel(timeouts), map[string]int{}},
		{"on request", liberal, 4, kernel(timeouts), map[string]int{settingLiberal: 1}},
		{"it is so", liberal, 4, kernel(with(map[string]int{settingLiberal: 1})), map[string]int{}},
		{"nothing is asked for", Tracking{}, 64, kernel(nil), map[string]int{}},
		{"a floor alone", Tracking{Min: 1 << 30}, 64, kernel(nil), map[string]int{}},
		{"what the kernel does not have", Defaults(), 64, kernel(map[string]int{settingMax: -1, settingBuckets: -1}), with(map[string]int{})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]int{}
			for _, w := range tt.set.Decide(tt.cores, tt.found) {
				if got[w.Name] = w.Value; w.Was != tt.found[w.Name] || w.Otherwise == "" {
					t.Errorf("%+v", w)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

// In a network namespace of its own the kernel lets no one write the limit of all.
func TestSettingsOfANetworkNamespace(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		set := Defaults()
		set.Liberal, set.MaxPerCore, set.Min = true, 1, 0
		changed, problems := Apply("", set, 1)
		if len(changed) != 3 || len(problems) > 0 {
			t.Errorf("changed %v, problems %v, want three and none", changed, problems)
		}
		for name, want := range map[string]string{settingEstablished: "86400", settingCloseWait: "3600", settingLiberal: "1"} {
			if got, err := sysctl.Default.Read(name); err != nil || got != want {
				t.Errorf("%s is %s (%v), want %s", name, got, err, want)
			}
		}
		if changed, problems := Apply("", set, 1); len(changed)+len(problems) > 0 {
			t.Errorf("repeated: changed %v, problems %v", changed, problems)
		}
		changed, problems = Apply("", set, 1<<27)
		if len(changed) > 0 || len(problems) != 2 || problems[0].Subject != "sysctl net.netfilter.nf_conntrack_max" ||
			!strings.Contains(problems[0].Text, "fewer than kube-proxy allows") ||
			!strings.Contains(problems[0].Cure, "sysctl net.netfilter.nf_conntrack_max=134217728 on the node; if the node is a container") {
			t.Errorf("more than may be set here: changed %v, problems %+v", changed, problems)
		}
	})
}

func TestTheLimitOfTheMachine(t *testing.T) {
	dir := sysctl.Dir(t.TempDir())
	if err := os.MkdirAll(dir.Path("net/netfilter"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{settingMax: "65536\n", settingBuckets: "16384\n"} {
		if err := os.WriteFile(dir.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed, problems := Apply(dir, Tracking{MaxPerCore: 1000, Min: 200000}, 300)
	if len(changed) != 2 || len(problems) > 0 {
		t.Errorf("changed %v, problems %v", changed, problems)
	}
	for name, want := range map[string]string{settingMax: "300000", settingBuckets: "75000"} {
		if got, err := dir.Read(name); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", name, got, err, want)
		}
	}
}

func TestCuresOfSettings(t *testing.T) {
	for err, want := range map[error]string{unix.EROFS: "--sysctl-root", unix.EACCES: "kind", unix.EINVAL: "on the node"} {
		if got := cure(Write{Name: settingMax, Value: 5}, err); !strings.Contains(got, "nf_conntrack_max=5 on the node") ||
			!strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q in it", err, got, want)
		}
	}
	if got := cure(Write{Name: settingCloseWait}, unix.EPERM); !strings.Contains(got, "CAP_NET_ADMIN") {
		t.Errorf("a missing right: %q", got)
	}
}

func TestSettingsThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "net/netfilter"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, settingCloseWait), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, problems := Apply(sysctl.Dir(dir), Defaults(), 1)
	if len(changed) > 0 || len(problems) != 4 || !strings.Contains(problems[0].Cure, "nf_conntrack") ||
		!strings.Contains(problems[3].Text, `close_wait is "x"`) {
		t.Errorf("changed %v, problems %+v", changed, problems)
	}
}

func TestProcessorsAreCounted(t *testing.T) {
	for text, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8,10-11": 7, "": 0, "x": 0, "3-1": 0, "0-": 0} {
		if got := count(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if n := Cores(); n < 1 {
		t.Errorf("this machine has %d", n)
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestWhatHasNoRoute(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:10:96::/112"),
		netip.MustParsePrefix("10.9.9.9/32")}
	var asked []string
	ask := func(missing ...string) []Problem {
		asked = nil
		return NoRoutes(ranges, addrs("10.96.0.7", "192.0.2.1", "2001:db8::1"), func(a netip.Addr) (bool, error) {
			asked = append(asked, a.String())
			for _, m := range missing {
				if a.String() == m {
					return false, nil
				}
			}
			return true, nil
		})
	}
	if list := ask(); len(list) > 0 {
		t.Errorf("with all routes: %v", list)
	}
	if diff := cmp.Diff([]string{"10.96.0.1", "fd00:10:96::1", "10.9.9.9", "192.0.2.1", "2001:db8::1"}, asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	list := ask("10.96.0.1", "10.9.9.9", "192.0.2.1", "2001:db8::1")
	if len(list) != 1 || !strings.Contains(list[0].Text, "10.96.0.0/12, 10.9.9.9/32, 192.0.2.1 (4 in all)") ||
		!strings.Contains(list[0].Cure, "ip route add 10.96.0.0/12 dev") {
		t.Errorf("problems: %+v", list)
	}
	list = NoRoutes(ranges, nil, func(netip.Addr) (bool, error) { return false, errors.New("broken") })
	if len(list) != 1 || !strings.Contains(list[0].Text, "broken") {
		t.Errorf("a kernel that does not answer: %+v", list)
	}
	many, count := []netip.Addr(nil), 0
	for i := range 1000 {
		many = append(many, netip.MustParseAddr(fmt.Sprintf("192.0.%d.%d", i/256, i%256)))
	}
	if NoRoutes(nil, many, func(netip.Addr) (bool, error) { count++; return true, nil }); count != maxLookups {
		t.Errorf("%d lookups, want %d", count, maxLookups)
	}
}

// What HasRoute says is what connect meets.
func TestRoutesOfTheKernel(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		run := func(args string) {
			t.Helper()
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v\n%s", args, err, out)
			}
		}
		run("link set lo up")
		for _, route := range []string{"10.97.0.0/16 dev lo", "blackhole 10.98.0.0/16", "prohibit 10.99.0.0/16", "unreachable 10.100.0.0/16",
			"fd00:97::/64 dev lo", "blackhole fd00:98::/64", "prohibit fd00:99::/64", "unreachable fd00:100::/64"} {
			run("route add " + route)
		}
		for a, want := range map[string]bool{"10.96.0.1": false, "10.97.0.1": true, "10.98.0.1": false, "10.99.0.1": false, "10.100.0.1": false,
			"fd00:96::1": false, "fd00:97::1": true, "fd00:98::1": false, "fd00:99::1": false, "fd00:100::1": false, "127.0.0.1": true} {
			got, err := HasRoute(netip.MustParseAddr(a))
			if err != nil || got != want {
				t.Errorf("%s: %t (%v), want %t", a, got, err, want)
			}
			c, err := net.DialTimeout("udp", net.JoinHostPort(a, "80"), time.Second)
			if err == nil {
				_ = c.Close()
			}
			if (err == nil) != want {
				t.Errorf("connecting to %s: %v, want a route: %t", a, err, want)
			}
		}
	})
}
