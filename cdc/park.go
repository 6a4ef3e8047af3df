package cdc

// Parker makes the record that tells of a bad row in the parked topic: its
// bytes as they came, and why it could not become the record that it was meant
// to be. It is pure.
type Parker func(row *Row, why *Problem) Record

// park turns a bad row into a record of the parked topic, which takes the place
// of the row's own: same batch, same position, so that nothing is passed over
// and nothing behind it waits. It returns false where a bad row halts: nobody
// asked for parking, or the parked record itself is what is refused.
func (r *Relay) park(pending *pendingRow, why *Problem) bool {
	if r.cfg.Park == nil || why.Reason != HaltBadRow || pending.record.Parked != "" {
		return false
	}
	pending.record = r.cfg.Park(&pending.row, why)
	pending.record.Position = pending.row.Position
	pending.record.Parked = why.What
	return true
}

// parkOrBlock parks the pending row, or lets it halt the relay as soon as
// everything before it is published.
func (r *Relay) parkOrBlock(why *Problem) {
	if s := &r.stream; !r.park(s.pending, why) {
		s.pending, s.blocked = nil, r.offerSkip(why, &s.pending.row)
	}
}
