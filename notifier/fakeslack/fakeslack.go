// Package fakeslack is a Slack incoming webhook for tests and demonstrations.
//
// It checks messages as Slack does, keeps the accepted ones, and answers by
// script where a test wants trouble. Any path takes posts; GET /messages lists
// what was accepted. It knows nothing of channels, and its memory is bounded.
package fakeslack

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// keptMessages is how many accepted messages are remembered.
const keptMessages = 10_000

// Slack's limits.
const (
	maxBlocks      = 50
	maxHeaderRunes = 150
	maxTextRunes   = 3000
	maxFields      = 10
	maxFieldRunes  = 2000
	maxBodyBytes   = 1 << 20
)

// Answer is what the next post gets. The zero value accepts it.
type Answer struct {
	Status     int    // 0 is 200
	Body       string // default: a word that fits the status
	RetryAfter string // header, for 429
	// Lost accepts the message and cuts the connection instead of answering.
	Lost bool
	// Hold accepts the message and answers when the channel is closed, or never
	// when the client goes away first.
	Hold <-chan struct{}
}

// Message is one accepted post.
type Message struct {
	Text string          `json:"text"`
	Body json.RawMessage `json:"body"`
	At   time.Time       `json:"at"`
}

// Server is an http.Handler. The zero value is ready.
type Server struct {
	// MinInterval answers 429 to a post that comes sooner after the last accepted
	// one; 0 is no limit. Set it before the first post.
	MinInterval time.Duration
	// OnAccept is called with every accepted message before the answer; nil is
	// fine. Set it before the first post.
	OnAccept func(Message)

	mu       sync.Mutex // guards the fields below
	script   []Answer
	always   *Answer
	messages []Message
	posts    int
	last     time.Time
}

var _ http.Handler = (*Server)(nil)

// Script answers the next posts in order; afterwards they are accepted again.
func (s *Server) Script(answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, answers...)
}

// Always answers every post that the script does not; nil accepts them.
func (s *Server) Always(answer *Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = answer
}

// Messages returns what was accepted, oldest first.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Posts returns how often somebody posted, accepted or not.
func (s *Server) Posts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		s.post(w, r)
	case r.Method == http.MethodGet && r.URL.Path == "/messages":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Messages()) // the reader has gone
	default:
		http.Error(w, "no_service", http.StatusNotFound)
	}
}

func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		reply(w, Answer{Status: http.StatusBadRequest, Body: "invalid_payload"})
		return
	}
	answer := s.nextAnswer()
	if answer.Status == 0 {
		if word := refusal(body); word != "" {
			reply(w, Answer{Status: http.StatusBadRequest, Body: word})
			return
		}
		if !s.accept(body) {
			reply(w, Answer{Status: http.StatusTooManyRequests, RetryAfter: strconv.Itoa(max(1, int(s.MinInterval.Seconds())))})
			return
		}
	}
	if answer.Hold != nil {
		select {
		case <-answer.Hold:
		case <-r.Context().Done():
			return
		}
	}
	if answer.Lost {
		panic(http.ErrAbortHandler)
	}
	reply(w, answer)
}

func (s *Server) nextAnswer() Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	if len(s.script) > 0 {
		answer := s.script[0]
		s.script = s.script[1:]
		return answer
	}
	if s.always != nil {
		return *s.always
	}
	return Answer{}
}

// accept keeps a message, unless it comes too soon.
func (s *Server) accept(body []byte) bool {
	var content struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(body, &content) // checked before
	m := Message{Text: content.Text, Body: bytes.Clone(body), At: time.Now()}
	s.mu.Lock()
	if s.MinInterval > 0 && m.At.Sub(s.last) < s.MinInterval {
		s.mu.Unlock()
		return false
	}
	s.last = m.At
	if len(s.messages) >= keptMessages {
		s.messages = slices.Delete(s.messages, 0, keptMessages/10)
	}
	s.messages = append(s.messages, m)
	s.mu.Unlock()
	if s.OnAccept != nil {
		s.OnAccept(m)
	}
	return true
}

func reply(w http.ResponseWriter, answer Answer) {
	if answer.RetryAfter != "" {
		w.Header().Set("Retry-After", answer.RetryAfter)
	}
	status := answer.Status
	if status == 0 {
		status = http.StatusOK
	}
	body := answer.Body
	if body == "" && status == http.StatusOK {
		body = "ok"
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client has gone
}

// text is a text object of Block Kit.
type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// refusal is the word with which Slack would refuse a message, or nothing.
func refusal(body []byte) string {
	var m struct {
		Text   string `json:"text"`
		Blocks []struct {
			Type     string `json:"type"`
			Text     *text  `json:"text"`
			Fields   []text `json:"fields"`
			Elements []text `json:"elements"`
		} `json:"blocks"`
	}
	if json.Unmarshal(body, &m) != nil {
		return "invalid_payload"
	}
	if m.Text == "" && len(m.Blocks) == 0 {
		return "no_text"
	}
	if len(m.Blocks) > maxBlocks {
		return "invalid_blocks"
	}
	for _, b := range m.Blocks {
		ok := false
		switch b.Type {
		case "header":
			ok = b.Text != nil && b.Text.Type == "plain_text" && fits(*b.Text, maxHeaderRunes)
		case "section":
			ok = (b.Text != nil || len(b.Fields) > 0) && len(b.Fields) <= maxFields && (b.Text == nil || fits(*b.Text, maxTextRunes)) &&
				!slices.ContainsFunc(b.Fields, func(t text) bool { return !fits(t, maxFieldRunes) })
		case "context":
			ok = len(b.Elements) > 0 && len(b.Elements) <= maxFields && !slices.ContainsFunc(b.Elements, func(t text) bool { return !fits(t, maxTextRunes) })
		}
		if !ok {
			return "invalid_blocks"
		}
	}
	return ""
}

func fits(t text, most int) bool {
	n := utf8.RuneCountInString(t.Text)
	return n > 0 && n <= most && (t.Type == "plain_text" || t.Type == "mrkdwn")
}
