package notifier

import (
	"fmt"
	"strings"
)

// Problem is an error that a person has to act on: restarting does not help.
type Problem struct {
	What string // what is wrong, with names
	Why  string // why it matters; may be empty
	Fix  string // a command or an action
	Err  error  // the cause; may be nil
}

// Error prints all parts on one line.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.What)
	if p.Why != "" {
		b.WriteString(" (" + p.Why + ")")
	}
	if p.Err != nil {
		fmt.Fprintf(&b, ": %v", p.Err)
	}
	if p.Fix != "" {
		b.WriteString("; way out: " + p.Fix)
	}
	return b.String()
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }
