package cdc

import "time"

// failures counts the same failure at the same position in a row.
type failures struct {
	what     string
	position Position
	count    int
}

func (f *failures) note(problem *Problem, position Position) int {
	if f.what != problem.What || f.position != position {
		*f = failures{what: problem.What, position: position}
	}
	f.count++
	return f.count
}

func (f *failures) reset() { *f = failures{} }

func backoff(n int) time.Duration {
	return min(backoffMax, backoffFirst<<min(n-1, 10))
}
