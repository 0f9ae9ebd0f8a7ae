// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"log/slog"
	"time"

	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// cuts ends existing connections that package decide denies. The goroutine of Apply uses it; audit and
// arrivals have goroutines of their own.
type cuts struct {
	log      *slog.Logger
	conn     *conntrack.Conn // nil if the kernel has no such interface
	why      error           // why conn is nil
	audit    audit
	arrivals *arrivals // nil if connections cannot be read
	swept    time.Time
	release  *time.Timer // for connections that are allowed again
}

const (
	// maxCuts bounds how many connections one commit cuts; the next commit takes the rest.
	maxCuts = 4096
	// maxLogged bounds the connections of one commit that are logged, at debug level.
	maxLogged = 10
	// sweepPeriod is how often to read which refused packets the kernel still holds.
	sweepPeriod = time.Minute
)

// Cuts counts the connections that an Apply or a Cut ended.
type Cuts struct {
	Ingress, Egress, Reused, Gone int
	// Refused is the size of the sets of packets that would revive them.
	Refused int
	Scans   Scans
}

func (c *cuts) open(o Options, log *slog.Logger, wake, denied func()) {
	c.log = log
	c.release = time.AfterFunc(time.Hour, denied)
	c.release.Stop()
	c.audit.init(log, wake, denied)
	var conns [3]*conntrack.Conn
	for i := range conns {
		if conns[i], c.why = conntrack.Open(); c.why != nil {
			break
		}
	}
	if c.why == nil {
		_, _, c.why = conns[0].Count()
	}
	if c.why != nil {
		_ = closeAll(conns[:]...) // not needed
		return
	}
	c.conn, c.audit.conn = conns[0], conns[1]
	c.arrivals = newArrivals(conns[2], log, !o.OpenUnknown, wake)
}

func (c *cuts) close() error {
	c.release.Stop()
	if c.conn == nil {
		return nil
	}
	return closeAll(c.conn, c.audit.conn, c.arrivals.conn)
}

func closeAll(conns ...*conntrack.Conn) error {
	var errs []error
	for _, c := range conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// sweep reads once per sweepPeriod which refused packets have expired, so that the rules are deleted when
// none is left.
func (d *Datapath) sweep(now time.Time) error {
	c := &d.cuts
	if d.decider.CountRefused() == 0 || now.Sub(c.swept) < sweepPeriod || !d.table.known {
		return nil
	}
	c.swept = now
	list, err := ruleset.ReadRefusals(d.conn)
	if err != nil {
		return err
	}
	if again := d.decider.Adopt(list); len(again) > 0 {
		d.note(nft.Notice{Table: true})
	}
	if d.decider.CountRefused() == 0 {
		d.denied.Set() // the rules that match the sets are to be deleted
	}
	return nil
}
