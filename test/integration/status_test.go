// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
)

// read asks a page from inside a namespace.
func read(t *testing.T, from *netns.NS, url string) string {
	t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// On the loopback, where the chart has it, no pod reads the status. On every address,
// as kube-router has it, a pod does that may reach its node; docs/operate.md says so.
func TestWhoReadsTheStatusDependsOnItsAddress(t *testing.T) {
	for name, address := range map[string]string{"loopback": "127.0.0.1", "every address": ""} {
		t.Run(name, func(t *testing.T) {
			w := newSmallWorld(t, lab.Routed)
			w.agent("node1", "--health-addr="+address).ready()
			pod := w.bed.Pod(key("nsa/a1")).NS
			for _, host := range []string{w.bed.Node("node1").Addrs[0].String(), "127.0.0.1"} {
				text := read(t, pod, "http://"+host+":20244/statusz")
				if got := strings.Contains(text, "podwall.status"); got != (address == "" && host != "127.0.0.1") {
					t.Errorf("a pod reads the status at %s: %t", host, got)
				}
			}
		})
	}
}
