package routing

import (
	"bytes"
	"fmt"
	"time"

	"github.com/cdc-relay/cdc-relay/cdc"
)

// positionHeaderBytes is the length of cdc.Position.Header.
const positionHeaderBytes = 4 + 1 + 16 + 1 + 8

// appendPositionHeader appends what cdc.Position.Header returns, without its
// cost: it runs once a row.
func appendPositionHeader(text []byte, p cdc.Position) []byte {
	text = appendHex(text, uint64(p.Generation), 4)
	text = append(text, '-')
	text = appendHex(text, uint64(p.CommitLSN), 16)
	text = append(text, '-')
	return appendHex(text, uint64(p.Serial), 8)
}

func appendHex(text []byte, value uint64, digits int) []byte {
	const hexDigits = "0123456789abcdef"
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		text = append(text, hexDigits[value>>shift&0xf])
	}
	return text
}

// commitTimeText is the text of the last commit time, which all rows of a
// transaction share.
type commitTimeText struct {
	time    time.Time
	text    []byte
	printer timePrinter
}

// of returns the commit time in RFC 3339, UTC. The text is valid until that of
// another time is asked for.
func (c *commitTimeText) of(t time.Time) []byte {
	if c.text == nil || !c.time.Equal(t) {
		c.time, c.text = t, c.printer.append(c.text[:0], t)
	}
	return c.text
}

// countRowHeaders estimates the entries of the headers column.
func countRowHeaders(p *plan, row *cdc.Row) int {
	if p.headers < 0 || len(row.Values[p.headers]) <= len("{}") {
		return 0
	}
	return min(maxPlainHeaders, bytes.Count(row.Values[p.headers], []byte(`":`)))
}

// appendRowHeaders appends the entries of the row's headers column. own are
// the names that the relay sets in this format.
func (r *Router) appendRowHeaders(headers []cdc.Header, p *plan, row *cdc.Row, own []string) ([]cdc.Header, error) {
	if p.headers < 0 {
		return headers, nil
	}
	first := len(headers)
	headers, err := appendRowHeaders(headers, row.Values[p.headers], r.names)
	if err != nil {
		return nil, badRow(row, fmt.Sprintf("has headers that cannot be sent: column %q %v", p.columnName(p.headers), err), "write a JSON object from string to string")
	}
	for i := first; i < len(headers); i++ {
		if why := headerNameProblem(headers[i].Key, own); why != "" {
			return nil, badRow(row, fmt.Sprintf("has headers that cannot be sent: column %q %s", p.columnName(p.headers), why), "write the header under another name")
		}
	}
	return headers, nil
}
