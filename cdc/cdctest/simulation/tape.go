package simulation

import (
	"fmt"
	"strconv"
	"strings"
)

// Tape is the record of all choices of one schedule: the plan's first, then
// those of each step. Steps stay apart so that one can be taken out without
// changing what the others mean; a choice that is missing is 0.
type Tape [][]uint16

// String is the form that ParseTape reads: choices in base 36, parted by
// commas, steps by semicolons.
func (t Tape) String() string {
	var b strings.Builder
	for i, step := range t {
		if i > 0 {
			b.WriteByte(';')
		}
		for j, v := range step {
			if j > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.FormatUint(uint64(v), 36))
		}
	}
	return b.String()
}

// ParseTape reads what String wrote.
func ParseTape(text string) (Tape, error) {
	var t Tape
	for step := range strings.SplitSeq(text, ";") {
		var values []uint16
		if step != "" {
			for value := range strings.SplitSeq(step, ",") {
				v, err := strconv.ParseUint(value, 36, 16)
				if err != nil {
					return nil, fmt.Errorf("tape: choice %q: %w", value, err)
				}
				values = append(values, uint16(v))
			}
		}
		t = append(t, values)
	}
	return t, nil
}

func (t Tape) clone() Tape {
	c := make(Tape, len(t))
	for i := range t {
		c[i] = append([]uint16(nil), t[i]...)
	}
	return c
}
