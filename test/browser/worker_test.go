// SPDX-License-Identifier: Apache-2.0

//go:build linux

package browser

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/podwall/podwall/internal/web"
)

// A program that has the port after a page may leave a service worker, which answers in the place of the
// next page there. The browser asks that page for a newer script, and then removes it.
func TestALeftServiceWorkerGoes(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := web.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/worker.js" {
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = fmt.Fprint(w, `self.addEventListener("activate", (e) => e.waitUntil(self.clients.claim()));
				self.addEventListener("fetch", (e) => e.respondWith(new Response("<p id=other>other</p>", {headers: {"Content-Type": "text/html"}})));`)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<p id=ready></p><script>navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready)
			.then(() => { document.getElementById("ready").textContent = "ready"; });</script>`)
	}), nil)
	go func() { _ = other.Serve(listener) }()
	t.Cleanup(func() { _ = other.Close() })
	port := listener.Addr().(*net.TCPAddr).Port
	p := open(t, fmt.Sprintf("http://127.0.0.1:%d/", port))
	p.awaitText("#ready", "ready")
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	address := serve(t, append(example(t, "1-same-namespace.yaml"), "--port", fmt.Sprint(port))...)
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(address))
	p.awaitText("#other", "other")
	// The browser asks for the script a moment after the page was opened last.
	p.await(`(navigator.serviceWorker.getRegistrations().then((all) => { window.left = all.length; }), window.left === 0)`)
	p.do(chromedp.Navigate("about:blank"), chromedp.Navigate(address))
	p.await(`document.querySelectorAll(".node").length >= 5`)
}
