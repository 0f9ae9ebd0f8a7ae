// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package xtables lists the chains of iptables-legacy's tables, which nftables does not show. It
// reads them as the program iptables does; it owns no rule and changes none.
package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Table is a table in use, with the names of its chains that are not built in.
type Table struct {
	Family string // as nft writes it: ip or ip6
	Name   string
	Chains []string
}

// Reader reads the tables of a network namespace, and remembers them: one is copied out of the
// kernel again only when its size or its number of rules changed. The zero value is ready.
type Reader struct {
	last map[tableKey]snapshot
}

type tableKey struct{ family, name string }

type snapshot struct {
	info   [infoLen]byte
	chains []string
}

// Read lists those of the named tables that are in use, in the network namespace of the calling
// thread. It requests no table that is not in use: the kernel would load it.
func (r *Reader) Read(tables ...string) (list []Table, err error) {
	for _, p := range protocols() {
		names, err := os.ReadFile(p.names)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has no iptables-legacy
		}
		if err != nil {
			return nil, fmt.Errorf("reading the tables of iptables-legacy: %w", err)
		}
		for _, name := range strings.Fields(string(names)) {
			if !slices.Contains(tables, name) {
				continue
			}
			chains, err := r.chains(p, name)
			if err != nil {
				return nil, fmt.Errorf("reading table %s %s of iptables-legacy: %w", p.family, name, err)
			}
			list = append(list, Table{Family: p.family, Name: name, Chains: chains})
		}
	}
	return list, nil
}

// protocol is what the two families' interfaces differ in.
type protocol struct {
	family string
	names  string // the file that lists the tables in use
	domain int
	level  int
	rule   int // size of struct ipt_entry, or ip6t_entry
	target int // offset in it of the target's offset, which is followed by that of the next rule
}

func protocols() []protocol {
	return []protocol{
		{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 112, 88},
		{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 168, 140},
	}
}

// The kernel's interface: IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES (the same numbers for IPv6), with
// their structures.
const (
	optInfo     = 64
	optEntries  = 65
	nameLen     = 32
	infoLen     = 84
	infoSize    = 80 // offset of the table's size in struct ipt_getinfo
	entriesHead = 40 // of struct ipt_get_entries: the name and the size, aligned
)

// chains returns the chains of a table.
func (r *Reader) chains(p protocol, name string) ([]string, error) {
	key := tableKey{p.family, name}
	fd, err := unix.Socket(p.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	for range 10 {                        // the table may grow between the two requests
		var s snapshot
		copy(s.info[:nameLen-1], name)
		if err := p.request(fd, optInfo, s.info[:]); err != nil {
			return nil, err
		}
		if known, ok := r.last[key]; ok && known.info == s.info {
			return known.chains, nil
		}
		size := binary.NativeEndian.Uint32(s.info[infoSize:])
		entries := make([]byte, entriesHead+int(size))
		copy(entries[:nameLen-1], name)
		binary.NativeEndian.PutUint32(entries[nameLen:], size)
		err = p.request(fd, optEntries, entries)
		if err == nil {
			s.chains = p.parse(entries[entriesHead:])
			if r.last == nil {
				r.last = map[tableKey]snapshot{}
			}
			r.last[key] = s
			return s.chains, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
	}
	return nil, err
}

func (p protocol) request(fd, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(p.level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// parse returns the names of the user-defined chains: each begins with a rule whose target is
// ERROR and holds the name. The end of the table has such a rule too.
func (p protocol) parse(blob []byte) (names []string) {
	const (
		targetHead = 32 // struct xt_entry_target: size, name, revision
		targetName = 2
	)
	for len(blob) >= p.rule {
		offsets := blob[p.target:]
		target, next := int(binary.NativeEndian.Uint16(offsets)), int(binary.NativeEndian.Uint16(offsets[2:]))
		if next < p.rule || next > len(blob) || target+targetHead > next {
			break // not as expected: return the chains read so far
		}
		if word(blob[target+targetName:target+targetHead]) == "ERROR" {
			names = append(names, word(blob[target+targetHead:next]))
		}
		blob = blob[next:]
	}
	if n := len(names); n > 0 {
		names = names[:n-1]
	}
	return names
}

func word(b []byte) string { return unix.ByteSliceToString(b) }
