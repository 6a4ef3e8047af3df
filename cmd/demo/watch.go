package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
	"github.com/cdc-relay/cdc-relay/notifier/fakeslack"
	"github.com/cdc-relay/cdc-relay/payment/event"
)

// What the page shows at most.
const (
	shownPaths    = 30
	keptPaths     = 2000 // a path joins up while it is among the latest
	shownMessages = 14
	lagSamples    = 240 // at lagInterval: two minutes
	shownFaults   = 40
)

// path is one payment on its way.
type path struct {
	EventID     string    `json:"event_id"`
	PaymentID   string    `json:"payment_id"`
	Reservation string    `json:"reservation_id"`
	Status      string    `json:"status"`
	Failure     string    `json:"failure,omitempty"`
	Amount      string    `json:"amount"`
	AskedAt     time.Time `json:"asked_at"`
	AnsweredMS  float64   `json:"answered_ms,omitempty"` // from the request on, as the others
	CommitLSN   string    `json:"commit_lsn,omitempty"`
	Record      string    `json:"record,omitempty"` // topic[partition]@offset
	KafkaMS     float64   `json:"kafka_ms,omitempty"`
	SlackMS     float64   `json:"slack_ms,omitempty"`

	deliveredAt, slackAt time.Time
}

// slackMessage is a message in the channel.
type slackMessage struct {
	Number int       `json:"number"`
	Title  string    `json:"title"`
	Text   string    `json:"text"`
	At     time.Time `json:"at"`
}

// faultShown is a fault in the log and in the chart.
type faultShown struct {
	Kind string    `json:"kind"`
	Text string    `json:"text"`
	At   time.Time `json:"at"`
}

// lagSample is a point of the chart.
type lagSample struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"s"`
}

// watch joins what each part of the path tells about an event. Its methods may
// be called from any goroutine.
type watch struct {
	onPath  func(path)   // called for every path that reached Slack, without the lock; nil is fine
	onFault func(string) // called for every fault, likewise

	mu       sync.Mutex // guards the fields below
	paths    []*path    // the oldest first
	byEvent  map[string]*path
	waiting  map[string]time.Time // answered, not yet in Kafka: since when
	early    map[string]bool      // in Kafka, not yet answered
	answers  map[string]bool      // event ids that the API answered
	slack    map[string]slackCount
	messages []slackMessage
	faults   []faultShown
	lag      []lagSample
	view     view
	firstAt  time.Time
}

// slackCount is how often an event was posted.
type slackCount struct {
	messages int
	flagged  int // of them, those that say that they may repeat another
}

// view is what the page and the terminal are drawn from.
type view struct {
	Now         time.Time       `json:"now"`
	Sent        int             `json:"sent"`
	InKafka     int             `json:"in_kafka"`
	InSlack     int             `json:"in_slack"` // different events
	RolledBack  int             `json:"rolled_back"`
	LagSeconds  float64         `json:"lag_seconds"`
	RelayState  string          `json:"relay_state"`
	RecordedLSN string          `json:"recorded_lsn"`
	RelayLives  int             `json:"relay_lives"`
	Down        map[string]bool `json:"down"`
	Audit       verdict         `json:"audit"`
	AuditedAt   time.Time       `json:"audited_at"`
	Auditing    bool            `json:"auditing"`
	FirstAfter  float64         `json:"first_after_seconds,omitempty"`
	Paths       []path          `json:"paths"`
	Messages    []slackMessage  `json:"messages"`
	Faults      []faultShown    `json:"faults"`
	Lag         []lagSample     `json:"lag"`
}

func newWatch() *watch {
	return &watch{
		byEvent: map[string]*path{}, waiting: map[string]time.Time{}, early: map[string]bool{}, answers: map[string]bool{}, slack: map[string]slackCount{},
		view: view{RelayState: "starting", Down: map[string]bool{}},
	}
}

// pathLocked returns the path of an event, a new one if it is the first word.
func (w *watch) pathLocked(eventID string) *path {
	if p := w.byEvent[eventID]; p != nil {
		return p
	}
	p := &path{EventID: eventID}
	w.byEvent[eventID] = p
	w.paths = append(w.paths, p)
	if len(w.paths) > keptPaths {
		delete(w.byEvent, w.paths[0].EventID)
		w.paths = w.paths[1:]
	}
	return p
}

// settleLocked fills in what follows from two words. Kafka may be known before
// the answer to the request.
func (p *path) settleLocked() {
	if p.AskedAt.IsZero() {
		return
	}
	ms := func(t time.Time) float64 { return max(0.001, float64(t.Sub(p.AskedAt).Microseconds())/1000) }
	if !p.deliveredAt.IsZero() {
		p.KafkaMS = ms(p.deliveredAt)
	}
	if !p.slackAt.IsZero() {
		p.SlackMS = ms(p.slackAt)
	}
}

// answered is told by the load.
func (w *watch) answered(a paid, asked time.Time) {
	w.mu.Lock()
	p := w.pathLocked(a.EventID)
	p.PaymentID, p.Reservation, p.Status, p.Amount = a.ID, a.ReservationID, string(a.Status), formatAmount(a.Amount)
	if a.Failure != nil {
		p.Failure = a.Failure.Code
	}
	p.AskedAt, p.AnsweredMS = asked, float64(time.Since(asked).Microseconds())/1000
	w.view.Sent++
	w.answers[a.EventID] = true
	if w.early[a.EventID] {
		delete(w.early, a.EventID)
	} else {
		w.waiting[a.EventID] = time.Now()
	}
	w.finish(p)
}

// delivered is told by the observer.
func (w *watch) delivered(r seenRecord, commitLSN cdc.LSN, value recordValue) {
	w.mu.Lock()
	p := w.pathLocked(r.eventID)
	if p.PaymentID == "" {
		p.PaymentID, p.Reservation, p.Status, p.Failure, p.Amount = value.PaymentID, value.ReservationID, string(value.Status), value.FailureCode, formatAmount(value.Amount)
	}
	p.CommitLSN, p.Record, p.deliveredAt = commitLSN.String(), fmt.Sprintf("%s[%d]@%d", event.Topic, r.partition, r.offset), time.Now()
	w.view.InKafka++
	if _, answered := w.waiting[r.eventID]; answered {
		delete(w.waiting, r.eventID)
	} else if !w.answers[r.eventID] {
		w.early[r.eventID] = true
	}
	w.finish(p)
}

var eventInMessage = regexp.MustCompile("event `([0-9a-f-]{36})`")

// posted is told by the fake Slack.
func (w *watch) posted(m fakeslack.Message) {
	id := ""
	if found := eventInMessage.FindSubmatch(m.Body); found != nil {
		id = string(found[1])
	}
	title, text, _ := strings.Cut(m.Text, ": ")
	w.mu.Lock()
	count := w.slack[id]
	if count.messages == 0 {
		w.view.InSlack++
	}
	count.messages++
	if strings.Contains(title, "possibly repeated") {
		count.flagged++
	}
	w.slack[id] = count
	number := 1
	if n := len(w.messages); n > 0 {
		number = w.messages[n-1].Number + 1
	}
	w.messages = append(w.messages, slackMessage{Number: number, Title: title, Text: text, At: m.At})
	if len(w.messages) > shownMessages {
		w.messages = w.messages[1:]
	}
	p := w.pathLocked(id)
	p.slackAt = m.At
	w.finish(p)
}

// finish settles a path, gives the lock back and tells a path that is complete.
func (w *watch) finish(p *path) {
	p.settleLocked()
	complete := p.SlackMS > 0 && p.KafkaMS > 0
	if complete && w.firstAt.IsZero() {
		w.firstAt = time.Now()
	}
	told := *p
	w.mu.Unlock()
	if complete && w.onPath != nil {
		w.onPath(told)
	}
}

func (w *watch) rolledBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.RolledBack++
}

func (w *watch) fault(kind, text string) {
	if w.onFault != nil {
		w.onFault(text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, faultShown{Kind: kind, Text: text, At: time.Now()})
	if len(w.faults) > shownFaults {
		w.faults = w.faults[1:]
	}
}

func (w *watch) down(part string, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.Down[part] = down
}

func (w *watch) audited(v verdict, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.Audit, w.view.AuditedAt = v, at
}

func (w *watch) auditing(now bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.Auditing = now
}

// sampleLag takes the relay's own measure, or without a relay the age of the
// oldest payment that was answered and is not in Kafka.
func (w *watch) sampleLag(state, recordedLSN string, lag *float64, lives int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	seconds := 0.0
	for _, since := range w.waiting {
		seconds = max(seconds, now.Sub(since).Seconds())
	}
	if lag != nil {
		seconds = *lag
	}
	w.view.RelayState, w.view.LagSeconds, w.view.RelayLives = state, seconds, lives
	w.view.RecordedLSN = cmp.Or(recordedLSN, w.view.RecordedLSN)
	w.lag = append(w.lag, lagSample{At: now, Seconds: seconds})
	if len(w.lag) > lagSamples {
		w.lag = w.lag[1:]
	}
}

// snapshot returns the view, the newest first.
func (w *watch) snapshot() view {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.view
	v.Now = time.Now()
	v.Down = map[string]bool{}
	for part, down := range w.view.Down {
		v.Down[part] = down
	}
	for i := len(w.paths) - 1; i >= 0 && len(v.Paths) < shownPaths; i-- {
		if !w.paths[i].AskedAt.IsZero() {
			v.Paths = append(v.Paths, *w.paths[i])
		}
	}
	for i := len(w.messages) - 1; i >= 0; i-- {
		v.Messages = append(v.Messages, w.messages[i])
	}
	v.Faults = append(v.Faults, w.faults...)
	v.Lag = append(v.Lag, w.lag...)
	return v
}

// first returns when a payment was first seen from request to Slack.
func (w *watch) first() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.firstAt
}

// firstAfter is shown from now on.
func (w *watch) firstAfter(seconds float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view.FirstAfter = seconds
}

// ends says what both ends of the path know, for the audit.
type ends struct {
	answered                                      int
	lost                                          int // answered, but not committed
	notPosted, repeated, flaggedRepeats, unknowns int // of Slack
}

// compare holds both ends against the committed rows: their keys by event id.
func (w *watch) compare(committed map[string]string) ends {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := ends{answered: len(w.answers), lost: len(w.answers)}
	for id := range committed {
		if w.answers[id] {
			e.lost--
		}
		count := w.slack[id]
		if count.messages == 0 {
			e.notPosted++
		}
		e.flaggedRepeats += count.flagged
		e.repeated += max(0, count.messages-count.flagged-1)
	}
	for id := range w.slack {
		if _, known := committed[id]; !known {
			e.unknowns++
		}
	}
	return e
}

// formatAmount prints an amount for people: 15,000 KRW, 42.00 USD.
func formatAmount(a event.Amount) string {
	digits := fmt.Sprint(a.Value)
	decimals := ""
	if a.Currency != "KRW" && a.Currency != "" {
		digits = fmt.Sprintf("%03d", a.Value)
		digits, decimals = digits[:len(digits)-2], "."+digits[len(digits)-2:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits + decimals + " " + a.Currency
}

// JSON is the view as the page reads it.
func (v view) JSON() ([]byte, error) { return json.Marshal(v) }
