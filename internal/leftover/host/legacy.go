// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

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

	"github.com/podwall/podwall/internal/leftover"
)

// iptables-legacy keeps its tables where netlink does not show them. Their names are listed in
// /proc; the content is read as the program iptables reads it.
type legacy struct {
	family string // as nft writes it
	names  string // the file that lists the tables in use
	domain int
	level  int
	rule   int // size of struct ipt_entry, or ip6t_entry
	target int // offset in it of the target's offset, which is followed by that of the next rule
}

func legacies() []legacy {
	return []legacy{
		{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.IPPROTO_IP, 112, 88},
		{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.IPPROTO_IPV6, 168, 140},
	}
}

// Legacy lists those of the named tables of iptables-legacy that are in use. It requests no table that is
// not in use: the kernel would load it.
func Legacy(tables ...string) (list []leftover.LegacyTable, err error) {
	for _, l := range legacies() {
		names, err := os.ReadFile(l.names)
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
			blob, err := l.read(name)
			if err != nil {
				return nil, fmt.Errorf("reading table %s %s of iptables-legacy: %w", l.family, name, err)
			}
			list = append(list, leftover.LegacyTable{Key: leftover.Key{Family: l.family, Name: name},
				Chains: l.chains(blob)})
		}
	}
	return list, nil
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

func (l legacy) read(name string) ([]byte, error) {
	fd, err := unix.Socket(l.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	for range 10 {                        // the table may grow between the two requests
		info := make([]byte, infoLen)
		copy(info[:nameLen-1], name)
		if err := l.ask(fd, optInfo, info); err != nil {
			return nil, err
		}
		size := binary.NativeEndian.Uint32(info[infoSize:])
		entries := make([]byte, entriesHead+int(size))
		copy(entries[:nameLen-1], name)
		binary.NativeEndian.PutUint32(entries[nameLen:], size)
		err = l.ask(fd, optEntries, entries)
		if err == nil {
			return entries[entriesHead:], nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
	}
	return nil, err
}

func (l legacy) ask(fd, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(l.level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// chains returns the names of the user-defined chains: each begins with a rule whose target is
// ERROR and holds the name. The end of the table has such a rule too.
func (l legacy) chains(blob []byte) (names []string) {
	const (
		targetHead = 32 // struct xt_entry_target: size, name, revision
		targetName = 2
	)
	for len(blob) >= l.rule {
		offsets := blob[l.target:]
		target, next := int(binary.NativeEndian.Uint16(offsets)), int(binary.NativeEndian.Uint16(offsets[2:]))
		if next < l.rule || next > len(blob) || target+targetHead > next {
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
