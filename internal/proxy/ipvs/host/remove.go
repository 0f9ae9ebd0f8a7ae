// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"log/slog"
	"os"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/ipvs"
)

// ours returns our virtual services, and whether others have some, too. A kernel without IPVS has none.
func ours(conn *kernel.Conn) (list []kernel.ID, others bool, err error) {
	found, err := conn.List()
	for _, s := range found {
		if ipvs.Own(s.Service) {
			list = append(list, s.ID)
		} else {
			others = true
		}
	}
	return list, others, err
}

// Others reports whether IPVS has virtual services of other programs, in the network namespace of the calling
// thread.
func Others() (bool, error) {
	if !loaded() {
		return false, nil
	}
	conn, err := kernel.Open()
	if err != nil {
		return false, none(err)
	}
	_, others, err := ours(conn)
	return others, errors.Join(err, conn.Close())
}

// loaded reports whether the kernel has IPVS already: to connect may load it.
func loaded() bool {
	_, err := os.Stat("/proc/thread-self/net/ip_vs")
	return err == nil
}

func none(err error) error {
	if errors.Is(err, kernel.ErrNone) {
		return nil
	}
	return err
}

// Remove removes podwall's virtual services and the addresses of Services, in the network namespace of the
// calling thread, and reports whether there were any. Connections through them end. Repeating it changes nothing.
func Remove(log *slog.Logger) (removed bool, err error) {
	r, err := openRoutes()
	if err != nil {
		return false, err
	}
	defer r.close()
	var failed []error
	for _, f := range inet.Families {
		found, err := r.list(f)
		failed = append(failed, err)
		for a := range found {
			failed = append(failed, r.remove(a))
		}
		if len(found) > 0 {
			removed = true
			log.Info("addresses of Services removed", "family", f, "count", len(found))
		}
	}
	virtual, err := removeVirtual(log)
	return removed || virtual, errors.Join(append(failed, err)...)
}

func removeVirtual(log *slog.Logger) (removed bool, err error) {
	if !loaded() {
		return false, nil
	}
	conn, err := kernel.Open()
	if err != nil {
		return false, none(err)
	}
	list, _, err := ours(conn)
	failed := []error{err}
	for _, id := range list {
		failed = append(failed, conn.Do(kernel.Op{Kind: kernel.DeleteService, Service: kernel.Service{ID: id}}))
	}
	if len(list) > 0 {
		log.Info("virtual services of IPVS removed", "count", len(list))
	}
	return len(list) > 0, errors.Join(append(failed, conn.Close())...)
}
