package simulation

// choices is the one source of every decision of a schedule: a generator made
// from a seed, or a recorded tape. Zero is the tamest answer wherever one is
// tamer than the others, so that shrinking has a direction.
type choices struct {
	state  uint64
	replay Tape // nil: the generator decides
	step   int  // of the tape; 0 is the plan
	next   int  // within the step

	recording bool
	recorded  Tape
}

func (c *choices) seed(seed uint64) {
	*c = choices{state: seed*0x9e3779b97f4a7c15 + 0x1234567, recording: c.recording}
	if c.recording {
		c.recorded = Tape{nil}
	}
}

func (c *choices) play(tape Tape) {
	*c = choices{replay: tape}
}

// beginStep starts the choices of the next step.
func (c *choices) beginStep() {
	c.step++
	c.next = 0
	if c.recording {
		c.recorded = append(c.recorded, nil)
	}
}

// left says whether a replayed tape has further steps.
func (c *choices) left() bool { return c.step+1 < len(c.replay) }

// pick returns a number below n; n must be positive.
func (c *choices) pick(n int) int {
	if c.replay != nil {
		if c.step >= len(c.replay) || c.next >= len(c.replay[c.step]) {
			return 0
		}
		v := int(c.replay[c.step][c.next]) % n
		c.next++
		return v
	}
	// splitmix64
	c.state += 0x9e3779b97f4a7c15
	z := c.state
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	v := int((z >> 32) * uint64(n) >> 32)
	if c.recording {
		c.recorded[c.step] = append(c.recorded[c.step], uint16(v))
	}
	return v
}

// chance is true in permille of a thousand cases.
func (c *choices) chance(permille int) bool {
	return permille > 0 && c.pick(1000) >= 1000-permille
}
