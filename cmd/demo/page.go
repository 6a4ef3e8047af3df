package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"time"

	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
)

//go:embed page.html
var pageHTML string

// slackPath is where the fake Slack takes posts.
const slackPath = "/slack/webhook"

// pageInterval is how often the page is told what is new.
const pageInterval = 200 * time.Millisecond

// page is the web page, and the fake Slack behind the same address.
//
// Everybody who reaches the address may look. The buttons work only from this
// machine: they need a token that only a loopback client with a loopback Host
// is given, so that no other web site can press them.
type page struct {
	listener net.Listener
	watch    *watch
	template *template.Template
	token    string
}

// newPage listens at the address, or at another port if it is taken.
func newPage(address string, w *watch) (*page, error) {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("read page.html: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		host, _, splitErr := net.SplitHostPort(address)
		if splitErr != nil {
			return nil, fmt.Errorf("--listen: %w", splitErr)
		}
		if listener, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return nil, fmt.Errorf("--listen: %w", err)
		}
	}
	return &page{listener: listener, watch: w, template: t, token: rand.Text()}, nil
}

// address is where this machine reaches the page.
func (p *page) address() string {
	address := p.listener.Addr().(*net.TCPAddr)
	if address.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", address.Port)
	}
	return address.String()
}

// run serves until ctx ends; do is what the buttons do.
func (p *page) run(ctx context.Context, do action) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.show)
	mux.HandleFunc("GET /state", p.state)
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { p.events(ctx, w, r) })
	mux.HandleFunc("POST /keys/{key}", func(w http.ResponseWriter, r *http.Request) { p.press(w, r, do) })
	mux.Handle(slackPath, &fakeslack.Server{OnAccept: p.watch.posted})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // readers of /events never leave by themselves
	if err := server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the page: %w", err)
	}
	return nil
}

// show sends the page with the state in it, so that it is never empty.
func (p *page) show(w http.ResponseWriter, r *http.Request) {
	token := ""
	if p.trusted(r) {
		token = p.token
	}
	var b bytes.Buffer
	if err := p.template.Execute(&b, map[string]any{"State": p.watch.snapshot(), "Token": token}); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'")
	header.Set("Cache-Control", "no-store")
	_, _ = b.WriteTo(w) // the reader has gone
}

func (p *page) state(w http.ResponseWriter, _ *http.Request) {
	text, err := p.watch.snapshot().JSON()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // the reader has gone
}

// events sends the state again and again, as server-sent events.
func (p *page) events(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w).Flush
	for ctx.Err() == nil {
		text, err := p.watch.snapshot().JSON()
		if err == nil {
			_, err = fmt.Fprintf(w, "data: %s\n\n", text)
		}
		if err != nil || flush() != nil || !sleep(r.Context(), pageInterval) {
			return
		}
	}
}

// press does what a button stands for and answers when it is done.
func (p *page) press(w http.ResponseWriter, r *http.Request, do action) {
	key := r.PathValue("key")
	if !p.trusted(r) || subtle.ConstantTimeCompare([]byte(r.Header.Get("X-Demo-Token")), []byte(p.token)) != 1 {
		http.Error(w, "the buttons work on the machine of the demo only", http.StatusForbidden)
		return
	}
	if len(key) != 1 {
		http.NotFound(w, r)
		return
	}
	if err := do(key[0]); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// trusted says whether the request comes from this machine and was meant for
// it: a foreign name in Host is another web site that points here.
func (p *page) trusted(r *http.Request) bool {
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !net.ParseIP(remote).IsLoopback() {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
