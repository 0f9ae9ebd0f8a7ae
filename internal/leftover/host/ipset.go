// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The library's functions for ipsets list all elements, of which there may be very many, log what
// they do not know, and panic on errors that are not numbers. Only two requests are needed here.

// listNames is IPSET_FLAG_LIST_SETNAME: a listing without elements.
const listNames = 1 << 1

func ipset(command int, attr *nl.RtAttr) ([][]byte, error) {
	request := nl.NewNetlinkRequest(command|unix.NFNL_SUBSYS_IPSET<<8, nl.GetIpsetFlags(command))
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_NETLINK, Version: nl.NFNETLINK_V0})
	request.AddData(nl.NewRtAttr(nl.IPSET_ATTR_PROTOCOL, nl.Uint8Attr(nl.IPSET_PROTOCOL)))
	request.AddData(attr)
	return request.Execute(unix.NETLINK_NETFILTER, 0)
}

// Sets lists the names of the ipsets. A kernel without them has none.
func Sets() (list []string, err error) {
	flags := nl.NewRtAttr(nl.IPSET_ATTR_FLAGS|int(nl.NLA_F_NET_BYTEORDER), binary.BigEndian.AppendUint32(nil,
		listNames))
	answers, err := ipset(nl.IPSET_CMD_LIST, flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing ipsets: %w", err)
	}
	for _, a := range answers {
		attrs, err := nl.ParseRouteAttr(a[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, fmt.Errorf("listing ipsets: %w", err)
		}
		for _, attr := range attrs {
			if attr.Attr.Type == nl.IPSET_ATTR_SETNAME {
				list = append(list, unix.ByteSliceToString(attr.Value))
			}
		}
	}
	return list, nil
}

// How long sets may stay in use after their last rule was deleted: the kernel frees rules some time
// after the transaction.
const (
	setPatience = 10 * time.Second
	setPause    = 20 * time.Millisecond
)

// Destroy removes the sets, each once nothing refers to it. A set that no longer exists is no error.
func Destroy(ctx context.Context, sets []string) error {
	var failed []error
	for end, i := time.Now().Add(setPatience), 0; i < len(sets); i++ {
		failed = append(failed, destroy(ctx, sets[i], end))
	}
	return errors.Join(failed...)
}

// destroy removes a set once nothing refers to it.
func destroy(ctx context.Context, name string, end time.Time) error {
	for {
		_, err := ipset(nl.IPSET_CMD_DESTROY, nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name)))
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("destroying ipset %s, a rule or another set may still use it: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("destroying ipset %s: %w", name, ctx.Err())
		case <-time.After(setPause):
		}
	}
}
