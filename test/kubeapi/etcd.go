// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	etcdTimeout = 30 * time.Second
	// etcdAttempts is for the short time between the choice of a port and the
	// moment when etcd listens: another process may take the port.
	etcdAttempts = 3
	// etcdQuota is room for a cluster of some 100,000 pods.
	etcdQuota = 4 << 30
)

// startEtcd runs a one-member etcd on loopback, with its state in dir/etcd.
func startEtcd(dir string) (*embed.Etcd, error) {
	var errs []error
	for range etcdAttempts {
		etcd, err := startEtcdOnce(dir)
		if err == nil {
			return etcd, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("starting etcd: %w", errors.Join(errs...))
}

func startEtcdOnce(dir string) (*embed.Etcd, error) {
	cfg, err := etcdConfig(dir)
	if err != nil {
		return nil, err
	}
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case err = <-etcd.Err():
	case <-time.After(etcdTimeout):
		err = fmt.Errorf("not ready after %s", etcdTimeout)
	}
	etcd.Close()
	return nil, err
}

func etcdConfig(dir string) (*embed.Config, error) {
	client, err := loopbackURL()
	if err != nil {
		return nil, err
	}
	peer, err := loopbackURL()
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{filepath.Join(dir, "etcd.log")}
	cfg.QuotaBackendBytes = etcdQuota
	cfg.UnsafeNoFsync = true // the state need not outlive a crash of the machine
	// The only member elects itself after about one election timeout.
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = client, client
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = peer, peer
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	return cfg, nil
}

func loopbackURL() ([]url.URL, error) {
	addr, err := pickPort(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if err != nil {
		return nil, err
	}
	return []url.URL{{Scheme: "http", Host: addr.String()}}, nil
}

// pickPort returns the address with the port, or with a free one if the port
// is 0. The port is not reserved.
func pickPort(a netip.Addr, port int) (netip.AddrPort, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(a, uint16(port)).String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("picking a port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}
