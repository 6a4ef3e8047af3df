package payment

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// A cursor is opaque to clients: a version, a mark of the filter it was made
// for, and the id after which to go on. With another filter it is refused, or
// pages would silently not belong together.
const cursorVersion = 1

func (f paymentFilter) mark() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v %v %s", f.UserID, f.ReservationID, f.Status))
	return sum[:4]
}

func (f paymentFilter) cursor(after uuid.UUID) string {
	text := append([]byte{cursorVersion}, f.mark()...)
	return base64.RawURLEncoding.EncodeToString(append(text, after[:]...))
}

func (f paymentFilter) parseCursor(text string) (uuid.UUID, bool) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != 1+4+16 || raw[0] != cursorVersion || string(raw[1:5]) != string(f.mark()) {
		return uuid.Nil, false
	}
	return uuid.UUID(raw[5:]), true
}

// The bounds of ?limit=.
const (
	defaultLimit = 20
	maxLimit     = 100
)

// pageQuery is a checked query for a page of payments.
type pageQuery struct {
	filter paymentFilter
	before uuid.UUID
	limit  int
}

func parsePageQuery(raw string) (q pageQuery, err error) {
	q.limit = defaultLimit
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, invalidQuery([]Violation{{Code: "format", Detail: "The query cannot be read."}})
	}
	var violations []Violation
	wrong := func(name, code, detail string) {
		violations = append(violations, Violation{Parameter: name, Code: code, Detail: detail})
	}
	cursor := ""
	for name, all := range values {
		value := all[0]
		if len(all) > 1 {
			wrong(name, "duplicate", "The parameter is there more than once.")
		}
		switch name {
		case "user_id":
			q.filter.UserID = queryID(name, value, wrong)
		case "reservation_id":
			q.filter.ReservationID = queryID(name, value, wrong)
		case "status":
			q.filter.Status = value
			if value != string(event.StatusCompleted) && value != string(event.StatusFailed) {
				wrong(name, "format", "Want COMPLETED or FAILED.")
			}
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > maxLimit {
				wrong(name, "range", fmt.Sprintf("Want 1 to %d.", maxLimit))
			}
			q.limit = n
		case "cursor":
			cursor = value
		default:
			wrong(name, "unknown_parameter", "There is no such parameter.")
		}
	}
	if _, given := values["cursor"]; given { // after all other parameters: it belongs to the filter
		var ok bool
		if q.before, ok = q.filter.parseCursor(cursor); !ok {
			wrong("cursor", "format", "Want the next_cursor of a page with the same filter.")
		}
	}
	if len(violations) > 0 {
		slices.SortFunc(violations, func(a, b Violation) int { return strings.Compare(a.Parameter, b.Parameter) })
		return q, invalidQuery(violations)
	}
	return q, nil
}

func queryID(name, value string, wrong func(name, code, detail string)) *uuid.UUID {
	id, ok := parseID(value)
	if !ok {
		wrong(name, "format", "Want a UUID.")
	}
	return &id
}
