// SPDX-License-Identifier: Apache-2.0

package page

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
)

// headers are on every answer, also on refusals.
func headers(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), usb=()")
	h.Set("Cache-Control", "no-store")
}

// refused says why a request is not answered; 0 if it is.
func (h *handler) refused(r *http.Request) (status int, why string) {
	switch {
	// A name of another site that leads here (DNS rebinding) is not ours.
	case !slices.Contains(h.hosts, strings.ToLower(r.Host)):
		return http.StatusForbidden, "this page has another address"
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, "the page only reads"
	case len(r.URL.RawQuery) > maxQuery:
		return http.StatusRequestURITooLong, "the question is too long"
	case !sameSite(r):
		return http.StatusForbidden, "only the page itself may ask"
	case isWorker(r):
		return http.StatusForbidden, noWorker
	}
	if _, asked := apiName(r.URL.Path); asked && !h.knows(r.Header.Get(TokenHeader)) {
		return http.StatusUnauthorized, "wrong token: open the address that kubectl podwall ui printed"
	}
	return 0, ""
}

// sameSite reports whether the page itself asks, or a user who opens it. Browsers say from where a
// request comes; other programs need not.
func sameSite(r *http.Request) bool {
	from := r.Header.Get("Sec-Fetch-Site")
	_, asked := apiName(r.URL.Path)
	switch {
	case from == "" || from == "same-origin":
		return true
	case asked:
		return false
	}
	// A link elsewhere may open the page in a window of its own: the window that has the link can read
	// nothing of it (Cross-Origin-Opener-Policy).
	return from == "none" ||
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

const noWorker = "the page has no service worker"

// isWorker reports whether a browser asks for the script of a service worker. The page has none, but a
// program that had this port before may have left one, which then stands between the page and its tabs.
// Browsers ask whether there is a newer script.
func isWorker(r *http.Request) bool { return r.Header.Get("Service-Worker") != "" }

// knows compares in a time that says nothing about the token.
func (h *handler) knows(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], h.token[:]) == 1
}

// apiName returns which question a path asks; false if it names a file.
func apiName(path string) (string, bool) { return strings.CutPrefix(path, "/api/") }
