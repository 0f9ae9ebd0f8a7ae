// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package node has what the service proxy needs of its node beside its tables: settings of connection
// tracking, and routes to the addresses of Services. Decide and NoRoutes are functions of what was read;
// Apply writes settings. It adds no route, and puts no setting back (ADR 0031).
package node

import (
	"fmt"
	"time"
)

// Tracking says how connection tracking is to be set. Fields that are zero leave the kernel's settings
// alone.
type Tracking struct {
	// MaxPerCore is how many connections the table holds for each processor, and Min how many at least. The
	// limit is raised to that, never lowered.
	MaxPerCore, Min int
	// TCPEstablished is how long a connection without packets is remembered at most; a longer time is
	// shortened to it.
	TCPEstablished time.Duration
	// TCPCloseWait is how long a connection that one end has closed is remembered at least; a shorter time is
	// lengthened to it.
	TCPCloseWait time.Duration
	// Liberal lets packets outside of the TCP window be translated too.
	Liberal bool
}

// Defaults returns kube-proxy's.
func Defaults() Tracking {
	const perCore, least = 32 << 10, 128 << 10
	return Tracking{MaxPerCore: perCore, Min: least, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}
}

// The settings, as package sysctl names them.
const (
	settingMax         = "net/netfilter/nf_conntrack_max"
	settingBuckets     = "net/netfilter/nf_conntrack_buckets"
	settingEstablished = "net/netfilter/nf_conntrack_tcp_timeout_established"
	settingCloseWait   = "net/netfilter/nf_conntrack_tcp_timeout_close_wait"
	settingLiberal     = "net/netfilter/nf_conntrack_tcp_be_liberal"
)

// names returns the settings that the tracking concerns.
func (t Tracking) names() (list []string) {
	if t.MaxPerCore > 0 {
		list = append(list, settingMax, settingBuckets)
	}
	if t.TCPEstablished > 0 {
		list = append(list, settingEstablished)
	}
	if t.TCPCloseWait > 0 {
		list = append(list, settingCloseWait)
	}
	if t.Liberal {
		list = append(list, settingLiberal)
	}
	return list
}

// Write is a setting to change, and what happens if it cannot be changed.
type Write struct {
	Name       string
	Was, Value int
	Otherwise  string
}

// Decide returns the settings to change, in this order, of those that were found.
func (t Tracking) Decide(cores int, found map[string]int) (list []Write) {
	change := func(name string, differs func(was int) bool, value int, otherwise string) {
		if was, known := found[name]; known && differs(was) {
			list = append(list, Write{name, was, value, otherwise})
		}
	}
	below := func(value int) func(int) bool { return func(was int) bool { return was < value } }
	if t.MaxPerCore > 0 {
		most := max(t.MaxPerCore*cores, t.Min)
		change(settingMax, func(was int) bool { return was != 0 && was < most }, most, // 0 is no limit
			fmt.Sprintf("the connection table holds %d connections at most, fewer than kube-proxy allows; when it "+
				"is full new ones are dropped", found[settingMax]))
		// Four connections a bucket, as in kube-proxy: with more of them each look-up walks a list.
		const perBucket = 4
		change(settingBuckets, below(most/perBucket), most/perBucket,
			"connections are found more slowly if there are many")
	}
	if seconds := int(t.TCPEstablished / time.Second); seconds > 0 {
		change(settingEstablished, func(was int) bool { return was > seconds }, seconds,
			"connections whose ends are gone fill the connection table for longer")
	}
	if seconds := int(t.TCPCloseWait / time.Second); seconds > 0 {
		change(settingCloseWait, below(seconds), seconds,
			"a connection through a Service that one end has closed may be forgotten before the other end closes it")
	}
	if t.Liberal {
		change(settingLiberal, below(1), 1, "packets outside of the TCP window are not translated")
	}
	return list
}
