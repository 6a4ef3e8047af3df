package audit

import (
	"bufio"
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// fanIn is how many runs are merged at a time, each with a buffer of its own.
	fanIn          = 64
	runBufferBytes = 64 << 10
)

// sorter sorts entries of one size by their bytes, in bounded memory: full
// buffers become sorted runs in files, and every fanIn runs of a level one run of
// the next. It belongs to one goroutine.
type sorter struct {
	size   int
	most   int // entries in the buffer
	dir    string
	buffer []byte
	levels [][]*os.File
}

func newSorter(entryBytes, memoryBytes int, dir string) *sorter {
	return &sorter{size: entryBytes, most: max(1, memoryBytes/entryBytes), dir: dir}
}

// add takes a copy of the entry.
func (s *sorter) add(entry []byte) error {
	if len(s.buffer) >= s.most*s.size {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.buffer = append(s.buffer, entry...)
	return nil
}

// sortBuffer returns the places of the buffer's entries in order.
func (s *sorter) sortBuffer() []uint32 {
	places := make([]uint32, len(s.buffer)/s.size)
	for i := range places {
		places[i] = uint32(i)
	}
	slices.SortFunc(places, func(a, b uint32) int { return bytes.Compare(s.at(a), s.at(b)) })
	return places
}

func (s *sorter) at(place uint32) []byte {
	start := int(place) * s.size
	return s.buffer[start : start+s.size]
}

// spill writes the buffer as a run.
func (s *sorter) spill() error {
	places := s.sortBuffer()
	next := 0
	run, err := s.write(func() ([]byte, error) {
		if next == len(places) {
			return nil, io.EOF
		}
		next++
		return s.at(places[next-1]), nil
	})
	if err != nil {
		return err
	}
	s.buffer = s.buffer[:0]
	return s.addRun(0, run)
}

func (s *sorter) addRun(level int, run *os.File) error {
	if level == len(s.levels) {
		s.levels = append(s.levels, nil)
	}
	s.levels[level] = append(s.levels[level], run)
	if len(s.levels[level]) < fanIn {
		return nil
	}
	runs := s.levels[level]
	merged, err := s.merge(runs, nil)
	if err != nil {
		return err
	}
	larger, err := s.write(merged.next)
	if err != nil {
		return err
	}
	closeRuns(runs)
	s.levels[level] = nil
	return s.addRun(level+1, larger)
}

// write makes a run of what next returns until io.EOF. The file has no name, so
// that nothing is left behind however the process ends.
func (s *sorter) write(next func() ([]byte, error)) (*os.File, error) {
	file, err := os.CreateTemp(s.dir, "cdc-relay-audit-*")
	if err != nil {
		return nil, fmt.Errorf("sort on disk: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("sort on disk: %w", err), file.Close())
	}
	out := bufio.NewWriterSize(file, runBufferBytes)
	for {
		entry, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			_, err = out.Write(entry)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sort on disk: %w", err), file.Close())
		}
	}
	if err := out.Flush(); err != nil {
		return nil, errors.Join(fmt.Errorf("sort on disk: %w", err), file.Close())
	}
	return file, nil
}

// sorted returns all entries in order; nothing may be added afterwards.
func (s *sorter) sorted() (*merge, error) {
	var runs []*os.File
	for _, level := range s.levels {
		runs = append(runs, level...)
	}
	return s.merge(runs, s.sortBuffer())
}

func (s *sorter) merge(runs []*os.File, places []uint32) (*merge, error) {
	m := &merge{size: s.size, sorter: s, places: places}
	for _, run := range runs {
		if _, err := run.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("sort on disk: %w", err)
		}
		source := &mergeSource{in: bufio.NewReaderSize(run, runBufferBytes), entry: make([]byte, s.size)}
		if err := source.advance(); err == nil {
			m.sources = append(m.sources, source)
		} else if !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("sort on disk: %w", err)
		}
	}
	heap.Init(m)
	return m, nil
}

func (s *sorter) close() {
	for _, level := range s.levels {
		closeRuns(level)
	}
	s.levels, s.buffer = nil, nil
}

func closeRuns(runs []*os.File) {
	for _, run := range runs {
		_ = run.Close() // it was read to its end, or nobody wants it any more
	}
}

// merge is sorted runs, and perhaps the sorted buffer, as one sequence.
type merge struct {
	size    int
	sources []*mergeSource // a heap
	sorter  *sorter
	places  []uint32
	entry   []byte
}

type mergeSource struct {
	in    *bufio.Reader
	entry []byte
}

func (s *mergeSource) advance() error {
	_, err := io.ReadFull(s.in, s.entry)
	return err
}

// next returns the next entry, valid until the next call, or io.EOF.
func (m *merge) next() ([]byte, error) {
	if len(m.places) > 0 {
		first := m.sorter.at(m.places[0])
		if len(m.sources) == 0 || bytes.Compare(first, m.sources[0].entry) <= 0 {
			m.places = m.places[1:]
			return first, nil
		}
	}
	if len(m.sources) == 0 {
		return nil, io.EOF
	}
	m.entry = append(m.entry[:0], m.sources[0].entry...)
	switch err := m.sources[0].advance(); {
	case errors.Is(err, io.EOF):
		heap.Pop(m)
	case err != nil:
		return nil, fmt.Errorf("sort on disk: %w", err)
	default:
		heap.Fix(m, 0)
	}
	return m.entry, nil
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (m *merge) Len() int           { return len(m.sources) }
func (m *merge) Less(i, j int) bool { return bytes.Compare(m.sources[i].entry, m.sources[j].entry) < 0 }
func (m *merge) Swap(i, j int)      { m.sources[i], m.sources[j] = m.sources[j], m.sources[i] }

// Push is never called: sources only become fewer.
func (m *merge) Push(source any) { m.sources = append(m.sources, source.(*mergeSource)) }

// Pop removes the last source.
func (m *merge) Pop() any {
	last := m.sources[len(m.sources)-1]
	m.sources = m.sources[:len(m.sources)-1]
	return last
}
