package routing

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// errNoTime is the cause for text that no time.Time in RFC 3339 can stand for:
// infinity, years before Christ or past 9999, and anything malformed.
var errNoTime = errors.New("not a time between the years 1 and 9999")

// columnTimes reads the text of timestamptz, timestamp and date columns as
// Postgres prints it with DateStyle ISO, which the stream pins: 2026-01-02
// 03:04:05.678901+00. Without an offset it is UTC. (PostgreSQL docs,
// "Date/Time Output".) It is written out because time.Parse costs several
// times as much, and this runs once a row; rows that follow each other are often
// of the same second, which is remembered.
type columnTimes struct {
	text   [len("2026-01-02 03:04:05")]byte
	second time.Time // what text stands for; zero: nothing is remembered
}

// parseColumnTime is columnTimes.parse for one text.
func parseColumnTime(text []byte) (time.Time, error) { return new(columnTimes).parse(text) }

func (c *columnTimes) parse(text []byte) (time.Time, error) {
	p := timeText{rest: text}
	t := c.upToSecond(&p)
	nanosecond, offset := p.fraction(), p.offset()
	if p.failed || len(p.rest) > 0 {
		return time.Time{}, fmt.Errorf("%s: %w", quoted(text), errNoTime)
	}
	t = t.Add(time.Duration(nanosecond) - time.Duration(offset)*time.Second)
	if offset != 0 && (t.Year() < 1 || t.Year() > 9999) {
		return time.Time{}, fmt.Errorf("%s: %w", quoted(text), errNoTime)
	}
	return t, nil
}

// upToSecond reads the date and, if there is one, the time of day without the
// fraction.
func (c *columnTimes) upToSecond(p *timeText) time.Time {
	if !c.second.IsZero() && bytes.HasPrefix(p.rest, c.text[:]) {
		p.rest = p.rest[len(c.text):]
		return c.second
	}
	text := p.rest
	year, month, day := p.digits(4), p.after('-', 2), p.after('-', 2)
	var hour, minute, second int
	if !p.failed && len(p.rest) > 0 {
		hour, minute, second = p.after(' ', 2), p.after(':', 2), p.after(':', 2)
	}
	if p.failed || year < 1 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		p.failed = true
		return time.Time{}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day {
		p.failed = true
		return time.Time{}
	}
	if len(text)-len(p.rest) == len(c.text) {
		copy(c.text[:], text)
		c.second = t
	}
	return t
}

// timeText is what is left to read; failed is set once and stays.
type timeText struct {
	rest   []byte
	failed bool
}

// digits reads exactly n digits.
func (p *timeText) digits(n int) int {
	if p.failed || len(p.rest) < n {
		p.failed = true
		return 0
	}
	value := 0
	for _, c := range p.rest[:n] {
		if c < '0' || c > '9' {
			p.failed = true
			return 0
		}
		value = value*10 + int(c-'0')
	}
	p.rest = p.rest[n:]
	return value
}

// after reads the separator and n digits.
func (p *timeText) after(separator byte, n int) int {
	if p.failed || len(p.rest) == 0 || p.rest[0] != separator {
		p.failed = true
		return 0
	}
	p.rest = p.rest[1:]
	return p.digits(n)
}

// fraction reads the optional fraction of a second, in nanoseconds.
func (p *timeText) fraction() int {
	if p.failed || len(p.rest) == 0 || p.rest[0] != '.' {
		return 0
	}
	p.rest = p.rest[1:]
	value, n := 0, 0
	for len(p.rest) > 0 && n < 9 && '0' <= p.rest[0] && p.rest[0] <= '9' {
		value = value*10 + int(p.rest[0]-'0')
		p.rest = p.rest[1:]
		n++
	}
	if n == 0 {
		p.failed = true
	}
	for ; n < 9; n++ {
		value *= 10
	}
	return value
}

// offset reads the optional +hh[:mm[:ss]], in seconds east of UTC.
func (p *timeText) offset() int {
	if p.failed || len(p.rest) == 0 {
		return 0
	}
	sign := 1
	switch p.rest[0] {
	case '+':
	case '-':
		sign = -1
	default:
		p.failed = true
		return 0
	}
	p.rest = p.rest[1:]
	seconds := p.digits(2) * 3600
	for _, unit := range []int{60, 1} {
		if len(p.rest) > 0 {
			seconds += p.after(':', 2) * unit
		}
	}
	return sign * seconds
}
