package simulation

import "time"

// Shrink looks for a shorter and tamer tape that breaks the same check: it
// cuts the tail, takes steps out in chunks that get smaller, and lowers what
// was chosen, as long as that still fails and time is left.
func Shrink(model Model, tape Tape, check Check, limit time.Duration) Tape {
	s := shrinker{w: NewWorld(model), check: check, best: tape, until: time.Now().Add(limit)}
	for before := -1; before != s.accepted && s.inTime(); {
		before = s.accepted
		s.cutTail()
		s.removeChunks()
		s.lower()
	}
	return s.best
}

type shrinker struct {
	w        *World
	check    Check
	best     Tape
	until    time.Time
	accepted int
}

func (s *shrinker) inTime() bool { return time.Now().Before(s.until) }

// try keeps the tape if it fails like the first one did.
func (s *shrinker) try(tape Tape) bool {
	if v := s.w.Replay(tape); v == nil || v.Check != s.check {
		return false
	}
	s.best = tape
	s.accepted++
	return true
}

// cutTail halves what is cut until nothing more can go.
func (s *shrinker) cutTail() {
	for cut := len(s.best) / 2; cut > 0 && s.inTime(); {
		if cut < len(s.best) && s.try(s.best[:len(s.best)-cut]) {
			continue
		}
		cut /= 2
	}
}

// removeChunks leaves the plan, which is step 0, in place.
func (s *shrinker) removeChunks() {
	for size := max(1, len(s.best)/4); size > 0 && s.inTime(); size /= 2 {
		for from := len(s.best) - size; from >= 1 && s.inTime(); from -= size {
			if from+size > len(s.best) {
				continue
			}
			shorter := append(s.best[:from:from], s.best[from+size:]...)
			s.try(shorter)
		}
	}
}

// lower makes single choices smaller; 0 is the tamest.
func (s *shrinker) lower() {
	for step := len(s.best) - 1; step >= 0 && s.inTime(); step-- {
		for i := 0; step < len(s.best) && i < len(s.best[step]) && s.inTime(); i++ {
			old := s.best[step][i]
			for _, v := range []uint16{0, old / 2, old - 1} {
				if v >= old {
					continue
				}
				tape := s.best.clone()
				tape[step][i] = v
				if s.try(tape) {
					break
				}
			}
		}
	}
}
