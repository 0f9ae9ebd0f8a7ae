// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
)

// value binds a flag to a variable of type T. It implements flag.Value, and
// its errors say what would have been right.
type value[T any] struct {
	target *T
	parse  func(string) (T, error)
	format func(T) string
	isBool bool
}

// Set parses a value and stores it.
func (v value[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.target = parsed
	return nil
}

// String returns the current value.
func (v value[T]) String() string {
	if v.target == nil { // the flag package asks the zero value
		return ""
	}
	return v.format(*v.target)
}

// IsBoolFlag tells whether the flag may stand without a value.
func (v value[T]) IsBoolFlag() bool { return v.isBool }

func boolean(target *bool) value[bool] {
	parse := func(s string) (bool, error) {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return false, fmt.Errorf("%q is not a boolean; write true or false", s)
		}
		return b, nil
	}
	return value[bool]{target, parse, strconv.FormatBool, true}
}

func text(target *string) value[string] {
	same := func(s string) string { return s }
	return value[string]{target, func(s string) (string, error) { return s, nil }, same, false}
}

// reason is a text that must say something.
func reason(target *string) value[string] {
	parse := func(s string) (string, error) {
		if s = strings.TrimSpace(s); s == "" {
			return "", errors.New("say why, for those who find the node open")
		}
		return s, nil
	}
	return value[string]{target, parse, func(s string) string { return s }, false}
}

func duration(target *time.Duration) value[time.Duration] {
	parse := func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration; write for example 30s or 5m", s)
		}
		return d, nil
	}
	return value[time.Duration]{target, parse, shortDuration, false}
}

// span is a duration that is longer than 0; 0 is for who does not give the flag.
func span(target *time.Duration) value[time.Duration] {
	v := duration(target)
	read := v.parse
	v.parse = func(s string) (time.Duration, error) {
		d, err := read(s)
		if err == nil && d <= 0 {
			err = fmt.Errorf("%q is not longer than 0", s)
		}
		return d, err
	}
	return v
}

// shortDuration leaves out what Duration.String appends: 5m0s is 5m.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func port(target *uint16) value[uint16] {
	parse := func(s string) (uint16, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not a port; write a number from 0 to 65535", s)
		}
		return uint16(n), nil
	}
	return value[uint16]{target, parse, func(n uint16) string { return strconv.Itoa(int(n)) }, false}
}

// nflogGroup reads a group of NFLOG, or 0 for none. The kernel's group 0 is the default of other
// programs, so it cannot be chosen.
func nflogGroup(target *uint16) value[uint16] {
	parse := func(s string) (uint16, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is no NFLOG group; write a number from 1 to 65535, or 0 for none", s)
		}
		return uint16(n), nil
	}
	return value[uint16]{target, parse, func(n uint16) string { return strconv.Itoa(int(n)) }, false}
}

func integer(target *int) value[int] {
	parse := func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0, fmt.Errorf("%q is not a whole number", s)
		}
		return n, nil
	}
	return value[int]{target, parse, strconv.Itoa, false}
}

func names(target *[]string) value[[]string] {
	parse := func(s string) (list []string, err error) {
		for name := range strings.SplitSeq(s, ",") {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if err := checkInterface(name); err != nil {
				return nil, err
			}
			list = append(list, name)
		}
		return list, nil
	}
	return value[[]string]{target, parse, func(list []string) string { return strings.Join(list, ",") }, false}
}

func ranges(target *Ranges) value[Ranges] {
	return value[Ranges]{target, ParseRanges, Ranges.String, false}
}

// ParseRanges reads ranges of addresses and of hardware addresses with commas between
// them, as the flag --extra-addresses has them.
func ParseRanges(s string) (r Ranges, err error) {
	for entry := range strings.SplitSeq(s, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if err := r.add(entry); err != nil {
			return Ranges{}, err
		}
	}
	return r, nil
}

func (r *Ranges) add(entry string) error {
	if h, ok := inet.ParseHardwareRange(entry); ok {
		r.Hardware = append(r.Hardware, h)
		return nil
	}
	p, err := netip.ParsePrefix(entry)
	if a, failed := netip.ParseAddr(entry); failed == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return fmt.Errorf("%q is no range; write for example 10.200.0.0/24, fd00:200::/64 or 52:54:00:00:00:00/24",
			entry)
	case p.Addr().Is4In6():
		return fmt.Errorf("%q is an IPv4 address in IPv6 form; write the IPv4 address", entry)
	case p != p.Masked():
		return fmt.Errorf("%q has bits set behind the prefix; write %s", entry, p.Masked())
	}
	r.Prefixes = append(r.Prefixes, p)
	return nil
}

// String returns the form that the flag reads.
func (r Ranges) String() string {
	var list []string
	for _, p := range r.Prefixes {
		list = append(list, p.String())
	}
	for _, h := range r.Hardware {
		list = append(list, h.String())
	}
	return strings.Join(list, ",")
}

// targets reads what is asked by a probe.
func targets(target *[]connect.Target) value[[]connect.Target] {
	return value[[]connect.Target]{target, connect.ParseTargets, connect.FormatTargets, false}
}

func oneOf[T ~string](target *T, choices ...T) value[T] {
	parse := func(s string) (T, error) {
		for _, c := range choices {
			if string(c) == s {
				return c, nil
			}
		}
		return "", fmt.Errorf("%q is none of %s", s, join(choices))
	}
	return value[T]{target, parse, func(v T) string { return string(v) }, false}
}

// manyOf reads a list of choices with commas between them, each once. An empty list is none.
func manyOf[T ~string](target *[]T, choices ...T) value[[]T] {
	parse := func(s string) (list []T, err error) {
		for word := range strings.SplitSeq(s, ",") {
			if word = strings.TrimSpace(word); word == "" {
				continue
			}
			if !slices.Contains(choices, T(word)) {
				return nil, fmt.Errorf("%q is none of %s", word, join(choices))
			}
			if !slices.Contains(list, T(word)) {
				list = append(list, T(word))
			}
		}
		return list, nil
	}
	format := func(list []T) string { return strings.ReplaceAll(join(list), ", ", ",") }
	return value[[]T]{target, parse, format, false}
}

func join[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = string(w)
	}
	return strings.Join(words, ", ")
}
