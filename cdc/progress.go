package cdc

// Progress holds the marks of one connection and says what may be acknowledged
// now. It is pure: marks move by …To and never fall.
//
// Invariant: confirmed <= recorded, or a crash would lose what Kafka never got.
// Invariant: confirmed <= received, because the server believes any number.
type Progress struct {
	// received is the end of what was read on this connection: the running
	// maximum of keepalive WAL ends and COMMIT end LSNs. XLogData headers do not
	// count; between BEGIN and COMMIT they lie in the middle of what is owed.
	received LSN
	// recorded: Kafka proves that nothing before it is owed.
	recorded LSN
	// idle is the largest WAL end, or end of a transaction without our rows,
	// seen outside BEGIN...COMMIT. It acknowledges quiet times; it never skips
	// a row.
	idle LSN
	// confirmed is what was last acknowledged on this connection; 0 for nothing.
	confirmed LSN
	// slotConfirmed is the slot's confirmed_flush at start. Servers before the
	// minor releases of 2025 would move the slot back to a smaller value.
	slotConfirmed LSN
	// held: a record on the server's timeline must come before any acknowledgement.
	held bool
}

func newProgress(resume Resume, slotConfirmed LSN) Progress {
	return Progress{recorded: resume.RecordedLSN, slotConfirmed: slotConfirmed, held: resume.RecordFirst}
}

func (p *Progress) receivedTo(lsn LSN) { p.received = max(p.received, lsn) }
func (p *Progress) idleTo(lsn LSN)     { p.idle = max(p.idle, lsn) }

// recordedTo takes the mark of a committed position record.
func (p *Progress) recordedTo(lsn LSN) {
	p.recorded = max(p.recorded, lsn)
	p.held = false
}

// nextConfirmed is the value of the next status: 0 until an acknowledgement
// can be given that moves nothing back. owedFrom is the commit LSN of the
// oldest row that is received and not recorded, or 0.
func (p *Progress) nextConfirmed(owedFrom LSN) LSN {
	next := min(p.recorded, p.received)
	if owedFrom != 0 {
		next = min(next, owedFrom)
	}
	next = max(next, p.confirmed)
	if p.held || next < p.slotConfirmed {
		return 0
	}
	return next
}

// acceptConfirmed notes that the status with this value was sent.
func (p *Progress) acceptConfirmed(lsn LSN) { p.confirmed = max(p.confirmed, lsn) }
