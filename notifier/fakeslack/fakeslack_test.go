package fakeslack

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func post(t *testing.T, url, body string) (status int, word, retryAfter string) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content), response.Header.Get("Retry-After")
}

func TestMessagesAreChecked(t *testing.T) {
	s := &Server{}
	server := httptest.NewServer(s)
	defer server.Close()
	header := func(n int) string {
		return `{"text":"t","blocks":[{"type":"header","text":{"type":"plain_text","text":"` + strings.Repeat("ä", n) + `"}}]}`
	}
	for _, test := range []struct {
		body   string
		status int
		word   string
	}{
		{`{"text":"hello"}`, 200, "ok"},
		{header(150), 200, "ok"},
		{header(151), 400, "invalid_blocks"},
		{header(0), 400, "invalid_blocks"},
		{`{"text":"t","blocks":[{"type":"section"}]}`, 400, "invalid_blocks"},
		{`{"text":"t","blocks":[{"type":"video"}]}`, 400, "invalid_blocks"},
		{`{"text":"t","blocks":[` + strings.Repeat(`{"type":"divider"},`, 50) + `{"type":"divider"}]}`, 400, "invalid_blocks"},
		{`{}`, 400, "no_text"},
		{`hello`, 400, "invalid_payload"},
	} {
		if status, word, _ := post(t, server.URL, test.body); status != test.status || word != test.word {
			t.Errorf("%.60s: got %d %s, want %d %s", test.body, status, word, test.status, test.word)
		}
	}
	response, err := http.Get(server.URL + "/messages")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var listed []Message
	if err := json.NewDecoder(response.Body).Decode(&listed); err != nil || len(listed) != 2 || listed[0].Text != "hello" || s.Posts() != 9 {
		t.Errorf("got %d posts, messages %v, %v", s.Posts(), listed, err)
	}
}

func TestScript(t *testing.T) {
	s := &Server{}
	server := httptest.NewServer(s)
	defer server.Close()
	s.Script(Answer{Status: 429, RetryAfter: "7"}, Answer{Lost: true})
	if status, _, retryAfter := post(t, server.URL, `{"text":"a"}`); status != 429 || retryAfter != "7" {
		t.Errorf("got %d, Retry-After %q", status, retryAfter)
	}
	if response, err := http.Post(server.URL, "application/json", strings.NewReader(`{"text":"b"}`)); err == nil {
		response.Body.Close()
		t.Errorf("got %s, want a cut connection", response.Status)
	}
	s.Always(&Answer{Status: 500})
	if status, _, _ := post(t, server.URL, `{"text":"c"}`); status != 500 {
		t.Errorf("got %d, want 500", status)
	}
	s.Always(nil)
	if messages := s.Messages(); len(messages) != 1 || messages[0].Text != "b" {
		t.Errorf("got %v, want the one whose answer was lost", messages)
	}
}

func TestTheRateIsLimited(t *testing.T) {
	server := httptest.NewServer(&Server{MinInterval: time.Hour})
	defer server.Close()
	for i, want := range []int{200, 429} {
		if status, _, retryAfter := post(t, server.URL, `{"text":"a"}`); status != want || want == 429 && retryAfter != "3600" {
			t.Errorf("post %d: got %d, Retry-After %q, want %d", i, status, retryAfter, want)
		}
	}
}
