// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
)

// Services are named at any time, also while the loop changes them.
func TestServicesAreNamed(t *testing.T) {
	s := newStage(t)
	at := func(p string) program.Front {
		a := netip.MustParseAddrPort(p)
		return program.Front{Addr: a.Addr(), Protocol: inet.TCP, Port: a.Port()}
	}
	backend := at("10.244.1.1:8080")
	if name, list := s.Named(inet.TCP, netip.AddrPortFrom(vip(), 80)), s.Behind([]program.Front{backend}); name != "" ||
		len(list[0]) > 0 {
		t.Errorf("before the first pass: %q, %v", name, list)
	}
	s.fill("10.244.1.1")
	s.run()
	s.next()
	s.await("served", func(x observe.Services) bool { return x.Services == 1 })
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for range 100 {
				s.Named(inet.TCP, netip.AddrPortFrom(vip(), 80))
				s.Behind([]program.Front{backend})
			}
		})
	}
	for i := range 10 {
		s.fill(fmt.Sprintf("10.244.1.%d", 1+i%2))
	}
	asking.Wait()
	s.fill("10.244.1.1")
	s.until("the first backend again", func(*service.Model) bool { return len(s.Behind([]program.Front{backend})[0]) > 0 })
	name := s.Named(inet.TCP, netip.AddrPortFrom(vip(), 80))
	behind := s.Behind([]program.Front{at("10.244.9.9:8080"), backend, at("10.244.1.1:81"), backend})
	if name == "" || fmt.Sprint(behind) != fmt.Sprintf("[[] [%s] [] [%s]]", name, name) {
		t.Errorf("named %q, behind %v", name, behind)
	}
	for _, other := range []netip.AddrPort{netip.AddrPortFrom(vip(), 81), netip.MustParseAddrPort("10.97.0.1:80")} {
		if got := s.Named(inet.TCP, other); got != "" {
			t.Errorf("%s is named %s", other, got)
		}
	}
	if !slices.IsSorted(behind[1]) {
		t.Errorf("%v is not sorted", behind[1])
	}
}
