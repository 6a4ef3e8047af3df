package cdc

// slab hands out memory in pieces of few large chunks, so that a piece costs no
// allocation, and takes all of it back at once.
type slab[T any] struct {
	perChunk int   // a piece of a quarter of it or more stands alone, and is not kept
	chunks   [][]T // the first ones are smaller
	used     int   // chunks[:used] were begun
	rest     []T   // of the last one begun
}

// take returns n zero values, which are the caller's until reset.
func (s *slab[T]) take(n int) []T {
	if n >= s.perChunk/4 {
		return make([]T, n)
	}
	for n > len(s.rest) || s.rest == nil {
		if s.used == len(s.chunks) {
			s.chunks = append(s.chunks, make([]T, max(n, s.perChunk>>max(0, 4-s.used))))
		}
		s.rest = s.chunks[s.used]
		s.used++
	}
	taken := s.rest[:n:n]
	s.rest = s.rest[n:]
	return taken
}

// keep returns a copy; nil stays nil.
func (s *slab[T]) keep(values []T) []T {
	if values == nil {
		return nil
	}
	kept := s.take(len(values))
	copy(kept, values)
	return kept
}

// reset takes back everything that was handed out: whoever still has a piece
// reads what it will hold for others.
func (s *slab[T]) reset() {
	for i, chunk := range s.chunks[:s.used] {
		if i == s.used-1 {
			chunk = chunk[:len(chunk)-len(s.rest)]
		}
		clear(chunk)
	}
	s.used, s.rest = 0, nil
}
