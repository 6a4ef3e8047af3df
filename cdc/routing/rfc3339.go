package routing

import "time"

// timePrinter prints times in RFC 3339, UTC, as time.RFC3339Nano does. Times
// that follow each other are often of the same second, whose text it keeps: this
// runs up to twice a row.
type timePrinter struct {
	second int64
	text   []byte // of second, without a fraction; empty: none
}

// append appends t, which has to lie in the years 0 to 9999.
func (p *timePrinter) append(to []byte, t time.Time) []byte {
	if second := t.Unix(); len(p.text) == 0 || second != p.second {
		p.second, p.text = second, t.UTC().AppendFormat(p.text[:0], "2006-01-02T15:04:05")
	}
	to = append(to, p.text...)
	if fraction := t.Nanosecond(); fraction != 0 {
		digits := [10]byte{0: '.'}
		for i := 9; i > 0; i-- {
			digits[i] = byte('0' + fraction%10)
			fraction /= 10
		}
		end := len(digits)
		for digits[end-1] == '0' {
			end--
		}
		to = append(to, digits[:end]...)
	}
	return append(to, 'Z')
}
