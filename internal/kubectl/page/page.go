// SPDX-License-Identifier: Apache-2.0

// Package page serves the page of `kubectl podwall ui` on the loopback, and says who may ask it.
// It has the files of the page, a guard in front of every answer, and bounds; what is answered
// is given to it as functions. It knows no policies, opens no port and writes nothing.
package page

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TokenHeader is the header in which the page sends its token.
const TokenHeader = "X-Podwall-Token"

// The bounds of requests.
const (
	// maxAnswering is how many questions are answered at the same time, maxWaiting how many may wait.
	maxAnswering = 4
	maxWaiting   = 16
	// maxQuery is the longest query, in bytes.
	maxQuery = 8 << 10
	// maxTime is the longest time that an answer may take.
	maxTime = 3 * time.Minute
	// writeTime is the longest time that writing an answer may take.
	writeTime = 30 * time.Second
)

// policy is the Content-Security-Policy: nothing but the page's own files, and no text ever becomes
// markup or code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed static
var embedded embed.FS

// Files are the files of the page; the page itself is index.html.
func Files() fs.FS {
	files, err := fs.Sub(embedded, "static")
	if err != nil {
		panic(err) // the name is a constant
	}
	return files
}

// Answer answers one kind of question. It must end when ctx does. A Problem is shown to the user
// as it is.
type Answer func(ctx context.Context, q url.Values) (any, error)

// Options say what is served.
type Options struct {
	// Address is where the server listens: a loopback address with its port.
	Address netip.AddrPort
	// Token is the secret of the page, from NewToken.
	Token string
	// Answers has the answers by name; NAME is at /api/NAME.
	Answers map[string]Answer
	// Streams are names of answers that wait for news: they do not count as questions, and have bounds
	// of their own, as high.
	Streams []string
}

// NewToken returns a token that cannot be guessed.
func NewToken() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// URL returns the address to open. The token is behind the #, which browsers send to no server.
func URL(at netip.AddrPort, token string) string { return "http://" + at.String() + "/#" + token }

// ParseLoopback reads the address to listen at. All others are refused: the page has no encryption
// and shows what its user may see.
func ParseLoopback(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Unmap().IsLoopback() || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("--address %q: want a loopback address, 127.0.0.1 or ::1; "+
			"from another machine use ssh -L PORT:127.0.0.1:PORT", text)
	}
	return a.Unmap(), nil
}

// handler is the server's handler.
type handler struct {
	hosts     []string
	token     [sha256.Size]byte
	files     http.Handler
	answers   map[string]Answer
	streams   []string
	questions room
	streaming room
	longest   time.Duration // of an answer
}

// room is what may go on at the same time.
type room struct {
	answering chan struct{}
	waiting   chan struct{}
}

func newRoom() room {
	return room{answering: make(chan struct{}, maxAnswering), waiting: make(chan struct{}, maxWaiting)}
}

// errFull says that there is no room, and none to wait in.
var errFull = errors.New("too many requests")

// enter waits for room; leave makes it again.
func (r room) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.waiting <- struct{}{}:
	default:
		return nil, errFull
	}
	defer func() { <-r.waiting }()
	select {
	case r.answering <- struct{}{}:
		return func() { <-r.answering }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// New returns the handler of the page. The token must not be empty.
func New(o Options) (http.Handler, error) {
	if o.Token == "" || !o.Address.Addr().IsLoopback() || o.Address.Port() == 0 {
		return nil, errors.New("the page needs a token, a loopback address and a port")
	}
	return &handler{
		hosts:     hosts(o.Address),
		token:     sha256.Sum256([]byte(o.Token)),
		files:     http.FileServerFS(Files()),
		answers:   o.Answers,
		streams:   o.Streams,
		questions: newRoom(),
		streaming: newRoom(),
		longest:   maxTime,
	}, nil
}

// hosts are the names of the page in requests. Browsers leave out port 80.
func hosts(at netip.AddrPort) []string {
	list := []string{at.String(), net.JoinHostPort("localhost", strconv.Itoa(int(at.Port())))}
	if at.Port() == 80 {
		for _, name := range list {
			list = append(list, strings.TrimSuffix(name, ":80"))
		}
	}
	return list
}

// ServeHTTP answers one request, if it comes from the page.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	headers(w.Header())
	if status, why := h.refused(r); status != 0 {
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, HEAD")
		}
		if why == noWorker {
			w.Header().Set("Clear-Site-Data", `"storage"`) // service workers are storage
		}
		http.Error(w, why, status)
		return
	}
	name, asked := apiName(r.URL.Path)
	if !asked {
		if r.URL.Path != "/" && !isFile(r.URL.Path) {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		h.files.ServeHTTP(w, r)
		return
	}
	answer := h.answers[name]
	if answer == nil {
		http.Error(w, "no such question", http.StatusNotFound)
		return
	}
	h.answer(w, r, name, answer)
}

// isFile reports whether a path is that of a file of the page; there are no lists of directories.
func isFile(path string) bool {
	info, err := fs.Stat(Files(), strings.TrimPrefix(path, "/"))
	return err == nil && !info.IsDir()
}

// answer waits for room, asks, and writes what is answered.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, name string, answer Answer) {
	// The server's own limit is for files: what was exceeded cannot be set again.
	if !writeUntil(w, time.Time{}) {
		return
	}
	value, err := h.value(r, name, answer)
	if errors.Is(err, errFull) {
		_ = writeUntil(w, time.Now().Add(writeTime)) // else the connection is closed
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	status := http.StatusOK
	if err != nil {
		status, value = http.StatusUnprocessableEntity, Problem{err.Error()}
	}
	if !writeUntil(w, time.Now().Add(writeTime)) {
		return
	}
	text, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text) // who asked may be gone
}

// writeUntil bounds the writing of an answer; it reports false if the connection is closed.
func writeUntil(w http.ResponseWriter, end time.Time) bool {
	err := http.NewResponseController(w).SetWriteDeadline(end)
	return err == nil || errors.Is(err, http.ErrNotSupported)
}

// value waits for room and asks, as long as an answer may take.
func (h *handler) value(r *http.Request, name string, answer Answer) (any, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithTimeout(r.Context(), h.longest)
	defer end()
	room := h.questions
	if slices.Contains(h.streams, name) {
		room = h.streaming
	}
	leave, err := room.enter(ctx)
	if err == nil {
		defer leave()
		var value any
		if value, err = answer(ctx, q); err == nil {
			return value, nil
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("it took longer than %s; ask about less", h.longest)
	}
	return nil, err
}

// Problem is the answer to a question that has none.
type Problem struct {
	Problem string `json:"problem"`
}
