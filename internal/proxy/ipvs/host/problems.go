// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// refusal reports whether an error is the kernel's answer about one object. Others, as of the connection to
// the kernel, of rights and of memory, are about all.
func refusal(err error) bool {
	return slices.ContainsFunc([]error{unix.EINVAL, unix.ERANGE, unix.EACCES, unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT,
		unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EEXIST, unix.ENOENT, unix.ESRCH, unix.ENETUNREACH,
		unix.EHOSTUNREACH, unix.ENETDOWN, kernel.ErrScheduler}, func(e error) bool { return errors.Is(err, e) })
}

// differs reports whether a refusal says that the kernel has something else than was known.
func differs(err error) bool {
	return errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
}

// refuse notes an error about a virtual service, or an address without a port. It fails the turn only if it is
// about more than this one object.
func (t *turn) refuse(id kernel.ID, err error) {
	if !refusal(err) {
		t.failed = append(t.failed, err)
		return
	}
	t.stale = t.stale || differs(err)
	if old, before := t.before[id]; !before || old.Error() != err.Error() {
		t.log.Warn("the kernel refuses a part of a Service", "err", err)
	}
	t.refused[id] = err
}

// again forgets what was refused or taken at IDs that are looked at, and all of the family if everything is.
func (t *turn) again(f inet.Family, at []kernel.ID) {
	if t.before == nil {
		t.before = map[kernel.ID]error{}
	}
	forget := func(id kernel.ID) {
		if err, found := t.refused[id]; found {
			t.before[id] = err
			delete(t.refused, id)
		}
	}
	for _, id := range at {
		if !t.without[id] {
			forget(id)
		}
		forget(kernel.ID{Addr: id.Addr})
	}
	if t.known {
		return
	}
	for id := range t.refused {
		if inet.FamilyOf(id.Addr) == f && !t.without[id] {
			forget(id)
		}
	}
}

// take notes which of the IDs that were looked at another program has.
func (t *turn) take(f inet.Family, at, taken []kernel.ID) {
	now := map[kernel.ID]bool{}
	for _, id := range taken {
		now[id] = true
		if !t.taken[id] {
			t.log.Error("another program has a virtual service where one of a Service should be", "at", id.String())
		}
	}
	maps.DeleteFunc(t.taken, func(id kernel.ID, _ bool) bool { return !t.known && inet.FamilyOf(id.Addr) == f })
	for _, id := range at {
		delete(t.taken, id)
	}
	maps.Copy(t.taken, now)
}

// asked returns the schedulers among some that a Service asks for.
func asked(programs func(inet.Family) *program.Program, among []string) (list []string) {
	if len(among) == 0 {
		return nil
	}
	found := map[string]bool{}
	for _, f := range inet.Families {
		for r := range programs(f).Routes.All() {
			found[r.Schedule.Scheduler.String()] = true
		}
	}
	for _, name := range among {
		if found[name] {
			list = append(list, name)
		}
	}
	return list
}

// Problems returns what does not work as it should after the last Apply.
func (p *Proxy) Problems() []Problem {
	list := slices.Clone(p.set)
	if n := len(p.taken); n > 0 {
		list = append(list, Problem{"virtual services of IPVS",
			fmt.Sprintf("another program has a virtual service at %s%s: Services are not served there",
				first(p.taken), more(n)),
			"stop that program and remove what it left (ipvsadm -C removes all virtual services; podwall's come back)"})
	}
	if n := len(p.refused); n > 0 {
		list = append(list, Problem{"refused by the kernel",
			fmt.Sprintf("%v%s: other Services are served, and one without a virtual service by the tables, at random",
				p.refused[first(p.refused)], more(n)),
			"correct the address in the Service or its EndpointSlice, or let the node take it (an IPv6 address " +
				"needs net.ipv6.conf.lo.disable_ipv6=0); it is tried again at each verification"})
	}
	for _, name := range p.lacked {
		list = append(list, Problem{"scheduler " + name, "the kernel does not have it: Services that ask for it get rr",
			"modprobe ip_vs_" + name + " on the node; it is tried again at each verification"})
	}
	return list
}

// first returns the lowest ID of some.
func first[V any](of map[kernel.ID]V) kernel.ID {
	return slices.MinFunc(slices.Collect(maps.Keys(of)), kernel.ID.Compare)
}

// more says how many others there are than the first.
func more(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(", and at %d more", n-1)
}
