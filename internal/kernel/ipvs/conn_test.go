// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ipvs

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"testing"

	lib "github.com/cloudflare/ipvs"
	"github.com/cloudflare/ipvs/netmask"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

func TestMain(m *testing.M) { entry.Try(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open connects to the IPVS of a network namespace of its own.
func open(t *testing.T) *Conn {
	t.Helper()
	ns := nftrun.Namespace(t)
	var c *Conn
	err := ns.Do(func() (err error) {
		c, err = Open()
		return err
	})
	if errors.Is(err, ErrNone) && os.Getenv("PODWALL_IPVS") != "true" {
		t.Skip("this kernel has no IPVS: run `make vm`")
	}
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func id(at string, p inet.Protocol) ID {
	a := netip.MustParseAddrPort(at)
	return ID{a.Addr(), p, a.Port()}
}

func destination(at string, weight uint32) Destination {
	a := netip.MustParseAddrPort(at)
	return Destination{Backend: Backend{a.Addr(), a.Port()}, Weight: weight}
}

func do(t *testing.T, c *Conn, ops ...Op) {
	t.Helper()
	for _, o := range ops {
		check(t, c.Do(o))
	}
}

func lists(t *testing.T, c *Conn, want ...Listed) {
	t.Helper()
	got, err := c.List()
	check(t, err)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the kernel has other virtual services (-want +got):\n%s", diff)
	}
}

func held(at string, weight uint32) Held { return Held{Destination: destination(at, weight)} }

func TestTheKernelHasWhatWasWritten(t *testing.T) {
	c := open(t)
	lists(t, c)
	four := Service{ID: id("10.96.0.1:80", inet.TCP), Scheduler: "rr"}
	udp := Service{ID: id("10.96.0.1:80", inet.UDP), Scheduler: "lc", Flags: Persistent, Timeout: 300}
	six := Service{ID: id("[fd00:96::1]:80", inet.SCTP), Scheduler: "mh", Flags: Persistent | Option1 | Option2, Timeout: 60}
	for _, s := range []Service{four, udp, six} {
		do(t, c, Op{Kind: AddService, Service: s})
	}
	do(t, c, Op{AddDestination, Service{ID: four.ID}, destination("10.244.0.7:8080", 1)},
		Op{AddDestination, Service{ID: four.ID}, destination("10.244.0.6:8081", 3)},
		Op{AddDestination, Service{ID: six.ID}, destination("[fd00:244::7]:8080", 1)})
	lists(t, c, Listed{four, []Held{held("10.244.0.6:8081", 3), held("10.244.0.7:8080", 1)}}, Listed{udp, nil},
		Listed{six, []Held{held("[fd00:244::7]:8080", 1)}})

	four.Scheduler, four.Flags, four.Timeout = "sh", Persistent, 10
	udp.Flags, udp.Timeout = 0, 0
	do(t, c, Op{Kind: EditService, Service: four}, Op{Kind: EditService, Service: udp},
		Op{EditDestination, Service{ID: four.ID}, destination("10.244.0.7:8080", 0)},
		Op{DeleteDestination, Service{ID: four.ID}, destination("10.244.0.6:8081", 3)},
		Op{Kind: DeleteService, Service: Service{ID: six.ID}})
	lists(t, c, Listed{four, []Held{held("10.244.0.7:8080", 0)}}, Listed{udp, nil})
}

// Every scheduler that an annotation may ask for, on the kernels that are tested.
func TestSchedulers(t *testing.T) {
	c := open(t)
	var want []Listed
	for i, name := range []string{"rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "lblc", "lblcr", "fo", "ovf"} {
		s := Service{ID: ID{netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), inet.TCP, 80}, Scheduler: name}
		do(t, c, Op{Kind: AddService, Service: s})
		want = append(want, Listed{Service: s})
	}
	lists(t, c, want...)
	err := c.Do(Op{Kind: AddService, Service: Service{ID: id("10.97.0.1:80", inet.TCP), Scheduler: "none-such"}})
	if !errors.Is(err, ErrScheduler) {
		t.Errorf("an unknown scheduler: %v", err)
	}
	lists(t, c, want...)
}

// Who marks virtual services as its own does it by such bits.
func TestTheKernelKeepsFlagsThatItDoesNotKnow(t *testing.T) {
	c := open(t)
	s := Service{ID: id("10.96.0.1:80", inet.TCP), Scheduler: "rr", Flags: 0x70000000 | Persistent, Timeout: 10}
	do(t, c, Op{Kind: AddService, Service: s})
	lists(t, c, Listed{Service: s})
	s.Flags, s.Timeout = 0x50000000, 0
	do(t, c, Op{Kind: EditService, Service: s})
	lists(t, c, Listed{Service: s})
}

func TestOfOthersIsListedToo(t *testing.T) {
	c := open(t)
	alone := netmask.MaskFrom(32, 32)
	check(t, c.client.CreateService(lib.Service{FWMark: 7, Family: lib.INET, Scheduler: "rr", Netmask: alone}))
	direct := lib.Service{Address: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lib.TCP, Family: lib.INET,
		Scheduler: "wlc", Netmask: alone}
	check(t, c.client.CreateService(direct))
	check(t, c.client.CreateDestination(direct, lib.Destination{Address: netip.MustParseAddr("192.0.2.2"), Port: 80,
		Family: lib.INET, FwdMethod: lib.DirectRoute, Weight: 1}))
	other := held("192.0.2.2:80", 1)
	other.Other = true
	lists(t, c, Listed{Service: Service{Mark: 7, Scheduler: "rr"}},
		Listed{Service{ID: id("192.0.2.1:80", inet.TCP), Scheduler: "wlc"}, []Held{other}})
}

func TestDeletingTwiceIsNoError(t *testing.T) {
	c := open(t)
	s := Service{ID: id("10.96.0.1:80", inet.TCP), Scheduler: "rr"}
	do(t, c, Op{Kind: AddService, Service: s}, Op{DeleteDestination, s, destination("10.244.0.7:8080", 1)},
		Op{Kind: DeleteService, Service: s}, Op{Kind: DeleteService, Service: s},
		Op{DeleteDestination, s, destination("10.244.0.7:8080", 1)})
	if err := c.Do(Op{AddDestination, s, destination("10.244.0.7:8080", 1)}); err == nil {
		t.Error("a destination was added to a virtual service that is not there")
	}
	if err := c.Do(Op{Kind: EditService, Service: s}); err == nil || errors.Is(err, ErrScheduler) {
		t.Errorf("editing one that is not there: %v", err)
	}
}

// refusing is a client whose every change fails.
// Timeouts are those of a network namespace: what is set there, and what was there where nothing is.
func TestTimeouts(t *testing.T) {
	c := open(t)
	was, err := c.Timeouts()
	check(t, err)
	if was.TCP == 0 || was.TCPFin == 0 || was.UDP == 0 {
		t.Errorf("a new network namespace has %+v", was)
	}
	for _, set := range []Timeouts{{TCP: 7200}, {TCPFin: 77, UDP: 55}, {}} {
		check(t, c.SetTimeouts(set))
		is, err := c.Timeouts()
		check(t, err)
		if was = set.Or(was); is != was {
			t.Errorf("after %+v it has %+v, want %+v", set, is, was)
		}
	}
	if err := c.SetTimeouts(Timeouts{UDP: 1 << 31}); err == nil {
		t.Error("a time that is too long is taken")
	}
}

type refusing struct {
	lib.Client
	err error
}

func (r refusing) CreateService(lib.Service) error { return r.err }
func (r refusing) RemoveService(lib.Service) error { return r.err }
func (r refusing) Services() ([]lib.ServiceExtended, error) {
	return nil, r.err
}

func TestErrorsSayWhatFailed(t *testing.T) {
	s := Service{ID: id("10.96.0.1:80", inet.TCP), Scheduler: "rr"}
	for _, tt := range []struct {
		err  error
		kind Kind
		want string
	}{
		{unix.EPERM, AddService, "IPVS: add 10.96.0.1 port 80/tcp scheduler rr flags 0x0 timeout 0: operation not permitted"},
		{fs.ErrNotExist, AddService, "IPVS: add 10.96.0.1 port 80/tcp scheduler rr flags 0x0 timeout 0: " + ErrScheduler.Error()},
		{unix.EPERM, DeleteService, "IPVS: delete 10.96.0.1 port 80/tcp: operation not permitted"},
		{unix.ESRCH, DeleteService, ""},
	} {
		err := (&Conn{refusing{err: tt.err}}).Do(Op{Kind: tt.kind, Service: s})
		if got := text(err); got != tt.want {
			t.Errorf("%v at %d: got %q, want %q", tt.err, tt.kind, got, tt.want)
		}
	}
	_, err := (&Conn{refusing{err: unix.EPERM}}).List()
	if got, want := text(err), "listing the virtual services of IPVS: operation not permitted"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	check(t, (&Conn{refusing{}}).Close())
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
