package nemesis

import "math/rand/v2"

// deck gives its cards in random order, and each of them again only when all
// were given.
type deck[C any] struct {
	rng   *rand.Rand
	cards []C
	left  []C
}

// draw takes the next card; the deck must have some.
func (d *deck[C]) draw() C {
	if len(d.left) == 0 {
		d.left = append(d.left, d.cards...)
		d.rng.Shuffle(len(d.left), func(i, j int) { d.left[i], d.left[j] = d.left[j], d.left[i] })
	}
	card := d.left[0]
	d.left = d.left[1:]
	return card
}
