package payment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/cdc-relay/cdc-relay/payment/event"
)

// MaxBodyBytes is the size of the largest body that is read.
const MaxBodyBytes = 64 << 10

// readBody returns the bytes of a JSON body.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return nil, unsupportedMediaType()
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, bodyTooLarge(tooLarge.Limit)
	}
	if err != nil {
		return nil, malformed("It could not be read to its end.")
	}
	if !utf8.Valid(body) {
		return nil, malformed("It is not UTF-8.")
	}
	return body, nil
}

// objectReader reads an object field by field and collects all that is wrong
// with it. A name counts once and exactly as it is written; encoding/json would
// take the last of two, in any case of letters.
type objectReader struct {
	pointer    string                     // #, or #/amount
	fields     map[string]json.RawMessage // nil: it is no object, and that no field is there is no news
	read       []string
	violations *[]Violation
}

// newObjectReader takes the body apart. The error is a *Problem for what is not
// JSON; wrong content shows up in done.
func newObjectReader(body []byte) (*objectReader, error) {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 {
		return nil, malformed("It is empty.")
	}
	if !json.Valid(body) {
		var v any
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&v); err == nil {
			return nil, malformed("There is more after the value.")
		}
		return nil, malformed("It is not JSON.")
	}
	o := &objectReader{pointer: "#", violations: new([]Violation)}
	o.open(body)
	return o, nil
}

// open reads the fields of a valid value, if it is an object.
func (o *objectReader) open(value []byte) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		o.wrong("", "type", "Want an object.")
		return
	}
	o.fields = map[string]json.RawMessage{}
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		var field json.RawMessage
		if err == nil && ok {
			err = decoder.Decode(&field)
		}
		if err != nil || !ok {
			panic(fmt.Sprintf("valid JSON cannot be read: %v", err))
		}
		if _, twice := o.fields[name]; twice {
			o.wrong(name, "duplicate", "The field is there more than once.")
		}
		o.fields[name] = field
	}
}

// wrong notes a violation at a field of this object, or at the object itself.
func (o *objectReader) wrong(name, code, detail string) {
	pointer := o.pointer
	if name != "" {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	}
	*o.violations = append(*o.violations, Violation{Pointer: pointer, Code: code, Detail: detail})
}

// take returns a field that has to be there unless it is optional.
func (o *objectReader) take(name string, optional bool) (json.RawMessage, bool) {
	o.read = append(o.read, name)
	field, ok := o.fields[name]
	if !ok && !optional && o.fields != nil {
		o.wrong(name, "required", "The field is missing.")
	}
	return field, ok
}

// done returns all violations, among them the fields that nobody asked for.
func (o *objectReader) done() error {
	o.unknown()
	if len(*o.violations) > 0 {
		return invalidBody(*o.violations)
	}
	return nil
}

func (o *objectReader) unknown() {
	var names []string
	for name := range o.fields {
		if !slices.Contains(o.read, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		o.wrong(name, "unknown_field", "There is no such field.")
	}
}

func (o *objectReader) text(name string, optional bool) (string, bool) {
	field, ok := o.take(name, optional)
	if !ok {
		return "", false
	}
	var text *string
	if err := json.Unmarshal(field, &text); err != nil || text == nil {
		o.wrong(name, "type", "Want a string.")
		return "", false
	}
	return *text, true
}

func (o *objectReader) uuid(name string) uuid.UUID {
	text, ok := o.text(name, false)
	if !ok {
		return uuid.Nil
	}
	id, ok := parseID(text)
	if !ok {
		o.wrong(name, "format", "Want a UUID.")
	}
	return id
}

// uuids reads a list of least to most ids without repeats.
func (o *objectReader) uuids(name string, least, most int) []uuid.UUID {
	field, ok := o.take(name, false)
	if !ok {
		return nil
	}
	var texts []json.RawMessage
	if err := json.Unmarshal(field, &texts); err != nil || texts == nil {
		o.wrong(name, "type", "Want a list of UUIDs.")
		return nil
	}
	if len(texts) < least || len(texts) > most {
		o.wrong(name, "length", fmt.Sprintf("Want %d to %d ids, got %d.", least, most, len(texts)))
		return nil
	}
	ids := make([]uuid.UUID, 0, len(texts))
	for i, raw := range texts {
		item := name + "/" + strconv.Itoa(i)
		var text *string
		if err := json.Unmarshal(raw, &text); err != nil || text == nil {
			o.wrongItem(item, "type", "Want a string.")
			continue
		}
		id, ok := parseID(*text)
		switch {
		case !ok:
			o.wrongItem(item, "format", "Want a UUID.")
		case slices.Contains(ids, id):
			o.wrongItem(item, "repeated", "The id is in the list already.")
		default:
			ids = append(ids, id)
		}
	}
	return ids
}

func (o *objectReader) wrongItem(path, code, detail string) {
	*o.violations = append(*o.violations, Violation{Pointer: o.pointer + "/" + path, Code: code, Detail: detail})
}

// integer is the only form in which money is accepted: 1e3 and 1000.0 are
// refused, as other readers may round them.
var integer = regexp.MustCompile(`^-?[0-9]+$`)

// money reads an amount of at least least.
func (o *objectReader) money(name string, least int64, optional bool) (Money, bool) {
	field, ok := o.take(name, optional)
	if !ok {
		return Money{}, false
	}
	amount := &objectReader{pointer: o.pointer + "/" + name, violations: o.violations}
	amount.open(field)
	var m Money
	if value, ok := amount.take("value", false); ok {
		number, err := strconv.ParseInt(string(value), 10, 64)
		switch {
		case !integer.Match(value):
			amount.wrong("value", "type", "Want an integer in the currency's minor unit.")
		case err != nil || number < least || number > event.MaxValue:
			amount.wrong("value", "range", fmt.Sprintf("Want %d to %d.", least, int64(event.MaxValue)))
		}
		m.Value = number
	}
	if m.Currency, ok = amount.text("currency", false); ok && !isCurrency(m.Currency) {
		amount.wrong("currency", "format", "Want a currency code of ISO 4217.")
	}
	amount.unknown()
	return m, true
}

func (o *objectReader) moment(name string) time.Time {
	text, ok := o.text(name, true)
	if !ok {
		return time.Time{}
	}
	moment, err := time.Parse(time.RFC3339, text)
	if err != nil || moment.UTC().Year() < 1970 || moment.UTC().Year() > 9999 {
		o.wrong(name, "format", "Want a time of RFC 3339 since 1970.")
		return time.Time{}
	}
	return moment.UTC()
}

// parseID accepts the plain form of a UUID only.
func parseID(text string) (uuid.UUID, bool) {
	if len(text) != 36 {
		return uuid.Nil, false
	}
	id, err := uuid.Parse(text)
	return id, err == nil
}

func parsePay(body []byte) (req payRequest, err error) {
	o, err := newObjectReader(body)
	if err != nil {
		return req, err
	}
	req = payRequest{UserID: o.uuid("user_id"), ReservationIDs: o.uuids("reservation_ids", 1, MaxReservations)}
	return req, o.done()
}

func parseUser(body []byte) (req userRequest, err error) {
	o, err := newObjectReader(body)
	if err != nil {
		return req, err
	}
	balance, given := o.money("balance", 0, true)
	if !given {
		balance = Money{Currency: "KRW"}
	}
	return userRequest{Balance: balance}, o.done()
}

func parseCharge(body []byte) (req chargeRequest, err error) {
	o, err := newObjectReader(body)
	if err != nil {
		return req, err
	}
	req.Amount, _ = o.money("amount", 1, false)
	return req, o.done()
}

func parseReservation(body []byte) (req reservationRequest, err error) {
	o, err := newObjectReader(body)
	if err != nil {
		return req, err
	}
	req.UserID = o.uuid("user_id")
	if seat, ok := o.text("seat", false); ok {
		if n := utf8.RuneCountInString(seat); n < 1 || n > 50 || strings.ContainsFunc(seat, unicode.IsControl) {
			o.wrong("seat", "format", "Want 1 to 50 characters, none of them a control character.")
		}
		req.Seat = seat
	}
	req.Price, _ = o.money("price", 1, false)
	req.ExpiresAt = o.moment("expires_at")
	return req, o.done()
}
