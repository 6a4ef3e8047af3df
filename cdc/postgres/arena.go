package postgres

const (
	arenaChunkBytes  = 64 << 10
	arenaChunkValues = 1024
)

// arena hands out memory for rows in chunks, so that a small row costs no
// allocation of its own. What it handed out is never reused: a chunk lives as
// long as any row of it.
type arena struct {
	bytes  []byte
	values [][]byte
}

// rowBytes returns n bytes; a row of a quarter chunk or more stands alone, so
// that keeping it keeps nothing else.
func (a *arena) rowBytes(n int) []byte {
	if n >= arenaChunkBytes/4 {
		return make([]byte, n)
	}
	if n > len(a.bytes) {
		a.bytes = make([]byte, arenaChunkBytes)
	}
	taken := a.bytes[:n:n]
	a.bytes = a.bytes[n:]
	return taken
}

// rowValues returns n nil values.
func (a *arena) rowValues(n int) [][]byte {
	if n >= arenaChunkValues/4 {
		return make([][]byte, n)
	}
	if n > len(a.values) {
		a.values = make([][]byte, arenaChunkValues)
	}
	taken := a.values[:n:n]
	a.values = a.values[n:]
	return taken
}
